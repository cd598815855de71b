//! The bytes of a real publisher (bitcoind with libzmq 4.3), whole, in pieces and altered.

use proptest::prelude::*;

use super::*;

/// What libzmq sends first: it offers version 3.1, and speaks 3.0 with whoever offers that.
fn real_start() -> Vec<u8> {
    let mut bytes = vec![0; GREETING_BYTES];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10..16].copy_from_slice(b"\x03\x01NULL");
    bytes.extend_from_slice(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB");
    bytes
}

/// Two notifications as they were received after a block.
fn real_notifications() -> Vec<u8> {
    let hash = "4f5b37833a66f3e4442b68a73e8185fa2b50f9b0c684e580123a84cfd0ad47cc";
    let hex = format!(
        "010873657175656e63650121{hash}43000401000000010968617368626c6f636b0120{hash}000400000000"
    );
    hex::decode_to_vec(&hex).unwrap()
}

/// Everything that `bytes` say, handed over in pieces of `piece` bytes.
fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Incoming>, ZmtpError> {
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.buffer().extend_from_slice(piece);
        while let Some(incoming) = decoder.poll()? {
            all.push(incoming);
        }
    }
    Ok(all)
}

#[test]
fn a_real_publisher_is_understood_however_its_bytes_are_cut() {
    let bytes = [real_start(), real_notifications()].concat();
    for piece in [1, 2, 7, 64, 1_000] {
        let all = decode(&bytes, piece).unwrap();
        let [
            Incoming::Ready,
            Incoming::Message(sequence),
            Incoming::Message(hash),
        ] = &all[..]
        else {
            panic!("{all:?}");
        };
        assert_eq!(
            (&sequence[0][..], sequence[1].len()),
            (&b"sequence"[..], 33)
        );
        assert_eq!(
            (&hash[0][..], &hash[2][..]),
            (&b"hashblock"[..], &[0; 4][..])
        );
    }
}

#[test]
fn what_we_say_is_of_the_same_form() {
    assert_eq!(greeting()[..10], real_start()[..10]);
    assert_eq!(ready()[..20], real_start()[GREETING_BYTES..][..20]);
    assert_eq!(subscription("rawtx"), b"\x00\x06\x01rawtx");
}

#[test]
fn large_frames_have_long_lengths_and_a_bound() {
    let frame = |length: u64| [&[LONG | MORE][..], &length.to_be_bytes()].concat();
    let mut bytes = [real_start(), b"\x01\x08rawblock".to_vec(), frame(300_000)].concat();
    bytes.extend(std::iter::repeat_n(7, 300_000));
    bytes.extend_from_slice(b"\x00\x04\x01\x00\x00\x00");
    let all = decode(&bytes, 1_000).unwrap();
    assert!(matches!(&all[1], Incoming::Message(parts) if parts[1].len() == 300_000));
    for length in [MAX_FRAME_BYTES as u64 + 1, u64::MAX, 1 << 63] {
        let bytes = [real_start(), frame(length)].concat();
        assert_eq!(decode(&bytes, 64), Err(ZmtpError::TooLong(length)));
    }
    let command = [real_start(), b"\x06\0\0\0\0\0\0\x04\x01".to_vec()].concat();
    assert_eq!(decode(&command, 64), Err(ZmtpError::TooLong(1_025)));
}

#[test]
fn everything_else_is_refused() {
    let refused = |bytes: &[u8]| decode(bytes, 1).expect_err("must be refused");
    assert_eq!(refused(b"HTTP/1.1 400 Bad Request\r\n"), ZmtpError::NotZmtp);
    let altered = |place: usize, value: &[u8]| {
        let mut bytes = real_start();
        bytes[place..place + value.len()].copy_from_slice(value);
        bytes
    };
    assert_eq!(refused(&altered(10, &[1])), ZmtpError::NotZmtp);
    assert_eq!(
        refused(&altered(12, b"CURVE")),
        ZmtpError::Mechanism("CURVE".into())
    );
    let end = real_start().len();
    let other = altered(end - 3, b"REP");
    assert_eq!(refused(&other), ZmtpError::NotPublisher("REP".into()));
    assert_eq!(refused(&altered(GREETING_BYTES, &[8])), ZmtpError::BadFrame);
    assert_eq!(refused(&altered(GREETING_BYTES, &[5])), ZmtpError::BadFrame);
    assert_eq!(
        refused(&altered(GREETING_BYTES + 2, &[30])),
        ZmtpError::BadFrame
    );
    let reason = [&real_start()[..GREETING_BYTES], b"\x04\x0a\x05ERROR\x03no!"].concat();
    assert_eq!(refused(&reason), ZmtpError::Refused("no!".into()));
    let early = [&real_start()[..GREETING_BYTES], b"\x00\x01x"].concat();
    assert_eq!(refused(&early), ZmtpError::BadMessage);
    for parts in [
        &b"\x00\x01x"[..],
        b"\x01\x01x\x00\x01x",
        b"\x01\0\x01\0\x01\0\x00\0",
    ] {
        let bytes = [&real_start()[..], parts].concat();
        assert_eq!(refused(&bytes), ZmtpError::BadMessage);
    }
    // Commands of newer versions are passed over.
    let ping = [
        &real_start()[..],
        b"\x04\x05\x04PING",
        &real_notifications(),
    ]
    .concat();
    assert_eq!(decode(&ping, 10).unwrap().len(), 3);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic_or_grow(
        junk in proptest::collection::vec(any::<u8>(), 0..200), greet in any::<bool>(), piece in 1_usize..50,
    ) {
        let bytes = match greet {
            true => [real_start(), junk].concat(),
            false => junk,
        };
        let mut decoder = Decoder::default();
        for piece in bytes.chunks(piece) {
            decoder.buffer().extend_from_slice(piece);
            while let Ok(Some(_)) = decoder.poll() {}
            prop_assert!(decoder.buffer().capacity() <= MAX_FRAME_BYTES + 1_024);
        }
    }
}
