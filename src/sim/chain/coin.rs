//! Outputs of the kinds that blocks are made of today, and what spends them.

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::key::{Keypair, TapTweak as _};
use bitcoin::opcodes::all::{OP_EQUAL, OP_SHA256};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{
    CompressedPublicKey, OutPoint, PubkeyHash, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Witness,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// Bytes of what opens a hash lock: from a hash's size to the longest that a script may push.
const PREIMAGE_BYTES: std::ops::RangeInclusive<usize> = 32..=520;

/// An output that can be spent.
#[derive(Clone, Debug)]
pub(super) struct Coin {
    pub outpoint: OutPoint,
    pub output: TxOut,
    pub lock: Lock,
}

/// What must be shown to spend an output.
#[derive(Clone, Debug)]
pub(super) enum Lock {
    /// A signature, in the input (P2PKH).
    KeyHash(SecretKey),
    /// A signature, in the witness (P2WPKH).
    WitnessKeyHash(SecretKey),
    /// A Schnorr signature (P2TR, by key).
    Taproot(SecretKey),
    /// The preimage of a hash (P2WSH).
    Preimage(Vec<u8>),
}

impl Lock {
    /// One of four kinds; witnesses prevail, as they do today.
    pub fn random(random: &mut StdRng) -> Self {
        match random.random_range(0..10) {
            0 => Self::KeyHash(secret(random)),
            1..=4 => Self::WitnessKeyHash(secret(random)),
            5..=7 => Self::Taproot(secret(random)),
            _ => {
                let mut preimage = vec![0; random.random_range(PREIMAGE_BYTES)];
                random.fill_bytes(&mut preimage);
                Self::Preimage(preimage)
            }
        }
    }

    /// The output's script.
    pub fn script(&self, secp: &Secp256k1<All>) -> ScriptBuf {
        match self {
            Self::KeyHash(secret) => ScriptBuf::new_p2pkh(&PubkeyHash::from(public(secret, secp))),
            Self::WitnessKeyHash(secret) => {
                ScriptBuf::new_p2wpkh(&public(secret, secp).wpubkey_hash())
            }
            Self::Taproot(secret) => {
                let (key, _) = Keypair::from_secret_key(secp, secret).x_only_public_key();
                ScriptBuf::new_p2tr(secp, key, None)
            }
            Self::Preimage(preimage) => ScriptBuf::new_p2wsh(&hash_lock(preimage).wscript_hash()),
        }
    }
}

impl Coin {
    /// An input that spends it and shows nothing yet.
    pub fn input(&self) -> TxIn {
        TxIn {
            previous_output: self.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        }
    }
}

/// Signs all inputs of a transaction, which spends `coins` in this order.
pub(super) fn sign(transaction: &mut Transaction, coins: &[Coin], secp: &Secp256k1<All>) {
    let outputs: Vec<&TxOut> = coins.iter().map(|coin| &coin.output).collect();
    let shown: Vec<(ScriptBuf, Witness)> = {
        let mut cache = SighashCache::new(&*transaction);
        let show = |(index, coin)| show(&mut cache, index, coin, &outputs, secp);
        coins.iter().enumerate().map(show).collect()
    };
    for (input, (script_sig, witness)) in transaction.input.iter_mut().zip(shown) {
        input.script_sig = script_sig;
        input.witness = witness;
    }
}

fn show(
    cache: &mut SighashCache<&Transaction>,
    index: usize,
    coin: &Coin,
    outputs: &[&TxOut],
    secp: &Secp256k1<All>,
) -> (ScriptBuf, Witness) {
    const WHY: &str = "the input exists and the script is of its kind";
    let script = &coin.output.script_pubkey;
    let all = EcdsaSighashType::All;
    match &coin.lock {
        Lock::KeyHash(secret) => {
            let digest = cache.legacy_signature_hash(index, script, all.to_u32());
            let digest = Message::from_digest(digest.expect(WHY).to_byte_array());
            let signature = ecdsa(secret, &digest, secp);
            let signature = PushBytesBuf::try_from(signature.to_vec()).expect("it is short");
            let script_sig = Builder::new()
                .push_slice(signature)
                .push_slice(public(secret, secp).to_bytes())
                .into_script();
            (script_sig, Witness::new())
        }
        Lock::WitnessKeyHash(secret) => {
            let value = coin.output.value;
            let digest = cache.p2wpkh_signature_hash(index, script, value, all);
            let digest = Message::from_digest(digest.expect(WHY).to_byte_array());
            let key = public(secret, secp).0;
            let witness = Witness::p2wpkh(&ecdsa(secret, &digest, secp), &key);
            (ScriptBuf::new(), witness)
        }
        Lock::Taproot(secret) => {
            let kind = TapSighashType::Default;
            let digest =
                cache.taproot_key_spend_signature_hash(index, &Prevouts::All(outputs), kind);
            let digest = Message::from_digest(digest.expect(WHY).to_byte_array());
            let pair = Keypair::from_secret_key(secp, secret).tap_tweak(secp, None);
            let signature = secp.sign_schnorr_no_aux_rand(&digest, &pair.to_keypair());
            let signature = bitcoin::taproot::Signature {
                signature,
                sighash_type: kind,
            };
            (ScriptBuf::new(), Witness::p2tr_key_spend(&signature))
        }
        Lock::Preimage(preimage) => {
            let script = hash_lock(preimage).into_bytes();
            let witness = Witness::from_slice(&[preimage, &script]);
            (ScriptBuf::new(), witness)
        }
    }
}

fn ecdsa(secret: &SecretKey, digest: &Message, secp: &Secp256k1<All>) -> bitcoin::ecdsa::Signature {
    bitcoin::ecdsa::Signature::sighash_all(secp.sign_ecdsa_low_r(digest, secret))
}

fn public(secret: &SecretKey, secp: &Secp256k1<All>) -> CompressedPublicKey {
    CompressedPublicKey(secret.public_key(secp))
}

/// The script that asks for the preimage.
fn hash_lock(preimage: &[u8]) -> ScriptBuf {
    Builder::new()
        .push_opcode(OP_SHA256)
        .push_slice(sha256::Hash::hash(preimage).to_byte_array())
        .push_opcode(OP_EQUAL)
        .into_script()
}

fn secret(random: &mut StdRng) -> SecretKey {
    loop {
        let bytes: [u8; 32] = random.random();
        // All but 2^-128 of them are keys.
        if let Ok(secret) = SecretKey::from_slice(&bytes) {
            return secret;
        }
    }
}
