//! Takes connections, lets them in or not, and sees them through their handshakes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::super::session::Notice;
use super::hub::{Handle, Hub, count};
use super::tls::Tls;
use super::transport::{Stream, lines, messages, web_socket_config};
use super::{Transport, client};

/// How long nobody is taken when the system has no more sockets. Reason: without a pause the loop spins.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until it is aborted; the clients then go on.
pub async fn run(hub: Arc<Hub>, transport: Transport, listener: TcpListener, tls: Option<Tls>) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => take(&hub, transport, stream, address, tls.as_ref()),
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn take(
    hub: &Arc<Hub>,
    transport: Transport,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<&Tls>,
) {
    // Who is not let in is closed without a word: a word would have to be waited for.
    let Ok((handle, notices)) = hub.admit(address, transport) else {
        return;
    };
    stream.set_nodelay(true).ok();
    let guest = Guest {
        hub: hub.clone(),
        handle,
    };
    let tls = tls.filter(|_| transport.has_tls()).cloned();
    tokio::spawn(async move {
        match tls {
            None => guest.upgrade(stream, notices).await,
            Some(tls) => {
                let patience = guest.hub.options.handshake_timeout;
                let shaking = tokio::time::timeout(patience, tls.acceptor.accept(stream));
                match shaking.await {
                    Ok(Ok(stream)) => guest.upgrade(stream, notices).await,
                    // Too slow, no TLS at all, or none that we speak.
                    _ => count(&guest.hub.counters.failed_tls, 1),
                }
            }
        }
    });
}

/// A client that was let in: when this is dropped it has left, whatever became of it.
pub struct Guest {
    pub hub: Arc<Hub>,
    pub handle: Arc<Handle>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.hub.leave(&self.handle);
    }
}

impl Guest {
    async fn upgrade<S: Stream>(self, stream: S, notices: tokio::sync::mpsc::Receiver<Notice>) {
        if !self.handle.transport.is_web_socket() {
            let (reader, writer) = lines(stream);
            return client::serve(self, reader, writer, notices).await;
        }
        let options = &self.hub.options;
        let config = web_socket_config(options.session.message.message_bytes);
        let shaking = tokio_tungstenite::accept_async_with_config(stream, Some(config));
        match tokio::time::timeout(options.handshake_timeout, shaking).await {
            Ok(Ok(socket)) => {
                let (reader, writer) = messages(socket);
                client::serve(self, reader, writer, notices).await;
            }
            _ => count(&self.hub.counters.failed_web_socket, 1),
        }
    }
}
