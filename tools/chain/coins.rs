//! Outputs of the kinds that are seen on the network, and how each is spent by Bitcoin Core's consensus rules.
//!
//! Keys sign for real. What is behind a script hash needs no signature: it drops pushes of a signature's size, which
//! costs no time and has the same shape.

use std::cell::RefCell;

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::key::{Keypair, Secp256k1, TweakedPublicKey};
use bitcoin::opcodes::all::{OP_2DROP, OP_CHECKMULTISIG, OP_CHECKSIG, OP_DROP, OP_PUSHNUM_1};
use bitcoin::opcodes::all::{OP_PUSHNUM_2, OP_RETURN};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{OutPoint, PublicKey, ScriptBuf, Transaction, TxOut, WPubkeyHash, Witness};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

/// Bytes of a DER signature with its type.
const SIGNATURE: usize = 72;
/// Bytes of a compressed key.
const KEY: usize = 33;

/// How an output is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Key hash in a witness program.
    P2wpkh,
    /// Script hash in a witness program.
    P2wsh,
    /// Taproot, spent by its key.
    P2tr,
    /// Key hash.
    P2pkh,
    /// Script hash.
    P2sh,
    /// Bare key.
    P2pk,
    /// Bare one of two keys.
    Multisig,
}

impl Kind {
    /// One as likely as on the network, roughly.
    pub fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..1_000) {
            0..360 => Self::P2wpkh,
            360..520 => Self::P2wsh,
            520..680 => Self::P2tr,
            680..840 => Self::P2pkh,
            840..990 => Self::P2sh,
            990..996 => Self::P2pk,
            _ => Self::Multisig,
        }
    }

    /// What an output of this kind costs of a block's 80,000 signature operations.
    pub fn output_operations(self) -> u64 {
        match self {
            Self::P2pkh | Self::P2pk => 4,
            Self::Multisig => 80,
            _ => 0,
        }
    }

    /// The same for spending it.
    pub fn input_operations(self) -> u64 {
        u64::from(self == Self::P2wpkh)
    }
}

/// An output that can be spent.
#[derive(Clone, Copy, Debug)]
pub struct Coin {
    /// Where it is.
    pub place: OutPoint,
    /// In satoshis.
    pub value: u64,
    /// How it is locked.
    pub kind: Kind,
    /// Which key or script, by number.
    pub number: u64,
}

/// Makes scripts, and what satisfies them.
pub struct Locks {
    secp: Secp256k1<All>,
    seed: u64,
    /// Keys of late, each in the place of its number: a coin's is asked for some times, and most are spent soon.
    keys: RefCell<Vec<Option<(u64, Keypair)>>>,
}

/// Keys that are remembered: 100 MB.
const KEYS: usize = 1 << 20;

impl Locks {
    /// Those of a seed.
    pub fn new(seed: u64) -> Self {
        let secp = Secp256k1::new();
        let keys = RefCell::new(vec![None; KEYS]);
        Self { secp, seed, keys }
    }

    /// The script of this kind and number.
    pub fn script(&self, kind: Kind, number: u64) -> ScriptBuf {
        let key = || self.keypair(number).public_key();
        match kind {
            Kind::P2wpkh => ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(&key().serialize())),
            Kind::P2wsh => self.inner(number).to_p2wsh(),
            Kind::P2tr => ScriptBuf::new_p2tr_tweaked(TweakedPublicKey::dangerous_assume_tweaked(
                self.keypair(number).x_only_public_key().0,
            )),
            Kind::P2pkh => ScriptBuf::new_p2pkh(&PublicKey::new(key()).pubkey_hash()),
            Kind::P2sh => self.inner(number).to_p2sh(),
            Kind::P2pk => Builder::new()
                .push_key(&PublicKey::new(key()))
                .push_opcode(OP_CHECKSIG)
                .into_script(),
            Kind::Multisig => {
                let key = PublicKey::new(key());
                Builder::new()
                    .push_opcode(OP_PUSHNUM_1)
                    .push_key(&key)
                    .push_key(&key)
                    .push_opcode(OP_PUSHNUM_2)
                    .push_opcode(OP_CHECKMULTISIG)
                    .into_script()
            }
        }
    }

    /// Satisfies every input of a transaction that spends these coins, in this order.
    pub fn sign(&self, transaction: &mut Transaction, coins: &[Coin], spent: &[TxOut]) {
        let unsigned = transaction.clone();
        let mut cache = SighashCache::new(&unsigned);
        for (index, (coin, output)) in coins.iter().zip(spent).enumerate() {
            let input = &mut transaction.input[index];
            match coin.kind {
                Kind::P2wsh | Kind::P2sh => {
                    let script = self.inner(coin.number);
                    let filler = [0x30; SIGNATURE];
                    if coin.kind == Kind::P2wsh {
                        let parts = [&filler[..], &filler[..KEY], script.as_bytes()];
                        input.witness = Witness::from_slice(&parts);
                    } else {
                        input.script_sig = pushes(&[&filler, &filler[..KEY], script.as_bytes()]);
                    }
                }
                Kind::P2tr => {
                    let prevouts = Prevouts::All(spent);
                    let hash = cache
                        .taproot_key_spend_signature_hash(index, &prevouts, TapSighashType::Default)
                        .expect("the index is one of an input");
                    let message = Message::from_digest(hash.to_byte_array());
                    let pair = self.keypair(coin.number);
                    let signature = self.secp.sign_schnorr_no_aux_rand(&message, &pair);
                    input.witness = Witness::from_slice(&[signature.as_ref()]);
                }
                Kind::P2wpkh => {
                    let hash = cache
                        .p2wpkh_signature_hash(
                            index,
                            &output.script_pubkey,
                            output.value,
                            EcdsaSighashType::All,
                        )
                        .expect("the index is one of an input");
                    let signature = self.ecdsa(coin.number, hash.to_byte_array());
                    let key = self.keypair(coin.number).public_key().serialize();
                    input.witness = Witness::from_slice(&[&signature[..], &key]);
                }
                Kind::P2pkh | Kind::P2pk | Kind::Multisig => {
                    let all = EcdsaSighashType::All.to_u32();
                    let hash = cache
                        .legacy_signature_hash(index, &output.script_pubkey, all)
                        .expect("the index is one of an input");
                    let signature = self.ecdsa(coin.number, hash.to_byte_array());
                    let key = self.keypair(coin.number).public_key().serialize();
                    input.script_sig = match coin.kind {
                        Kind::P2pkh => pushes(&[&signature, &key]),
                        Kind::P2pk => pushes(&[&signature]),
                        _ => pushes(&[&[], &signature]),
                    };
                }
            }
        }
    }

    fn keypair(&self, number: u64) -> Keypair {
        let place = number as usize % KEYS;
        if let Some((kept, pair)) = self.keys.borrow()[place]
            && kept == number
        {
            return pair;
        }
        let bytes = [self.seed.to_le_bytes(), number.to_le_bytes()].concat();
        let secret = sha256::Hash::hash(&bytes).to_byte_array();
        let secret = SecretKey::from_slice(&secret).expect("all but one in 2^128 are keys");
        let pair = Keypair::from_secret_key(&self.secp, &secret);
        self.keys.borrow_mut()[place] = Some((number, pair));
        pair
    }

    fn ecdsa(&self, number: u64, hash: [u8; 32]) -> Vec<u8> {
        let key = self.keypair(number).secret_key();
        let signature = self.secp.sign_ecdsa(&Message::from_digest(hash), &key);
        let mut bytes = signature.serialize_der().to_vec();
        bytes.push(EcdsaSighashType::All as u8);
        bytes
    }

    /// The script behind a script hash: drops what it is given.
    fn inner(&self, number: u64) -> ScriptBuf {
        Builder::new()
            .push_slice(number.to_le_bytes())
            .push_opcode(OP_DROP)
            .push_opcode(OP_2DROP)
            .push_opcode(OP_PUSHNUM_1)
            .into_script()
    }
}

/// A script of the network's shape that this tool never spends: no key is made for it.
pub fn unspent(random: &mut StdRng, kind: Kind) -> ScriptBuf {
    let mut hash = [0; 32];
    random.fill_bytes(&mut hash);
    let bytes = match kind {
        Kind::P2wsh => [&[0, 32][..], &hash].concat(),
        Kind::P2tr => [&[0x51, 32][..], &hash].concat(),
        Kind::P2pkh => [&[0x76, 0xa9, 20][..], &hash[..20], &[0x88, 0xac]].concat(),
        Kind::P2sh => [&[0xa9, 20][..], &hash[..20], &[0x87]].concat(),
        Kind::P2wpkh | Kind::P2pk | Kind::Multisig => [&[0, 20][..], &hash[..20]].concat(),
    };
    ScriptBuf::from(bytes)
}

/// A script that says something and can't be spent.
pub fn data(random: &mut StdRng) -> ScriptBuf {
    let mut bytes = vec![0; random.random_range(8..=80)];
    random.fill_bytes(&mut bytes);
    let bytes = PushBytesBuf::try_from(bytes).expect("it is short");
    Builder::new()
        .push_opcode(OP_RETURN)
        .push_slice(bytes)
        .into_script()
}

fn pushes(parts: &[&[u8]]) -> ScriptBuf {
    let mut script = Builder::new();
    for part in parts {
        let part = PushBytesBuf::try_from(part.to_vec()).expect("it is short");
        script = script.push_slice(part);
    }
    script.into_script()
}
