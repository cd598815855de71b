//! What one of us tells another over Bitcoin's own protocol (BIP434).

/// What we tell others of us: where the relay's own protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Advert {
    /// Version of the relay's protocol.
    pub version: u16,
    /// TCP port of the control connection; 0: not listening.
    pub control_port: u16,
    /// UDP port of the datagrams; 0: not listening.
    pub data_port: u16,
}
