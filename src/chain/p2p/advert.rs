//! What one of us tells another over Bitcoin's own protocol: where the relay's own protocol is spoken.
//!
//! A peer that knows `feature` (BIP434, protocol version 70017) is told between `version` and `verack`, under
//! [`FEATURE_ID`]. One that does not, and claims this project's service bit, is told by a message of our own,
//! `blktorrent`, after `verack`; nobody else ever gets that message.
//!
//! DSC-3 and DSC-4 of the specification; ADVERT is BODY here.
//!
//! ```text
//!   feature      = CompactSize 14, "blocktorrent/1", CompactSize 6, BODY
//!   blktorrent   = BODY
//!   BODY         = u16 version, u16 control port, u16 data port       little-endian; what follows is passed over
//! ```

use super::read::{DecodeError, Reader, put_compact_size};

/// Our name in BIP434.
pub const FEATURE_ID: &str = "blocktorrent/1";
/// Most bytes of a feature's data.
///
/// Reason: BIP434's.
const MAX_FEATURE_DATA: usize = 512;
/// Fewest and most bytes of a feature's name, BIP434's.
const FEATURE_ID_BYTES: std::ops::RangeInclusive<usize> = 4..=80;

/// What we tell others of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Advert {
    /// Version of the relay's protocol.
    pub version: u16,
    /// TCP port of the control connection; 0: not listening.
    pub control_port: u16,
    /// UDP port of the datagrams; 0: not listening.
    pub data_port: u16,
}

impl Advert {
    /// Its six bytes (DSC-3).
    pub fn to_bytes(self) -> [u8; 6] {
        let [a, b] = self.version.to_le_bytes();
        let [c, d] = self.control_port.to_le_bytes();
        let [e, f] = self.data_port.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Reads them back; later versions may add to them.
    ///
    /// # Errors
    /// If there are fewer than six bytes.
    pub fn read(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        Ok(Self {
            version: reader.u16()?,
            control_port: reader.u16()?,
            data_port: reader.u16()?,
        })
    }

    /// The payload of a `feature` (BIP434).
    pub fn to_feature(self) -> Vec<u8> {
        let body = self.to_bytes();
        let mut payload = Vec::new();
        put_compact_size(&mut payload, FEATURE_ID.len() as u64);
        payload.extend_from_slice(FEATURE_ID.as_bytes());
        put_compact_size(&mut payload, body.len() as u64);
        payload.extend_from_slice(&body);
        payload
    }

    /// Reads the payload of a `feature`: `None` if it is some other feature.
    ///
    /// # Errors
    /// If the payload breaks BIP434's limits, or is ours and too short.
    pub fn read_feature(payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(payload);
        let id = reader.var_bytes(*FEATURE_ID_BYTES.end())?;
        let data = reader.var_bytes(MAX_FEATURE_DATA)?;
        reader.end()?;
        if !FEATURE_ID_BYTES.contains(&id.len()) {
            return Err(DecodeError::Value);
        }
        if id != FEATURE_ID.as_bytes() {
            return Ok(None);
        }
        Self::read(data).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_keep_to_bip434() {
        let advert = Advert {
            version: 1,
            control_port: 8433,
            data_port: 8434,
        };
        let payload = advert.to_feature();
        assert_eq!(Advert::read_feature(&payload), Ok(Some(advert)));
        assert_eq!(payload.len(), 1 + 14 + 1 + 6);
        for length in 0..payload.len() {
            assert!(Advert::read_feature(&payload[..length]).is_err());
        }
        assert!(Advert::read_feature(&[&payload[..], &[0]].concat()).is_err());
        assert_eq!(Advert::read_feature(b"\x04BIP9\x00"), Ok(None));
        assert!(Advert::read_feature(b"\x03BIP\x00").is_err());
        let long = |id: usize, data: usize| {
            let mut bytes = vec![id as u8];
            bytes.resize(1 + id, b'x');
            put_compact_size(&mut bytes, data as u64);
            bytes.resize(bytes.len() + data, 0);
            Advert::read_feature(&bytes)
        };
        assert_eq!(long(80, 512), Ok(None));
        assert!(long(81, 0).is_err());
        assert!(long(80, 513).is_err());
    }

    #[test]
    fn later_versions_may_add_to_the_body() {
        let body = [2, 0, 1, 0, 3, 0, 99];
        let advert = Advert::read(&body).expect("longer than needed");
        assert_eq!(
            (advert.version, advert.control_port, advert.data_port),
            (2, 1, 3)
        );
        assert!(Advert::read(&body[..5]).is_err());
    }
}
