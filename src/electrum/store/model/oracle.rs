//! The protocol's sentences as code, in the plainest way: a list of blocks, a list of transactions, and loops over all of it.
//!
//! It shares nothing with what it judges: ids, sizes and roots are rust-bitcoin's, answers are trees of values, refusals are the
//! codes. Where the protocol's text leaves something open, ElectrumX is followed, and it is said.

use std::collections::BTreeMap;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::{Hash as _, sha256, sha256d};
use bitcoin::{Block, OutPoint, Script, Transaction, Txid};
use serde_json::{Value, json};

/// As 1.4.2 is written: major, minor, revision.
pub type Version = (u32, u32, u32);

const V1_6: Version = (1, 6, 0);
const V1_7: Version = (1, 7, 0);

/// Codes, as ElectrumX has them.
const BAD_REQUEST: i64 = 1;
const DAEMON_ERROR: i64 = 2;
const NO_METHOD: i64 = -32_601;
const INVALID_PARAMS: i64 = -32_602;

/// A transaction with its id, so that the id is made once.
#[derive(Clone)]
pub struct Named {
    pub id: Txid,
    pub body: Transaction,
}

impl Named {
    pub fn of(body: &Transaction) -> Self {
        Self {
            id: body.compute_txid(),
            body: body.clone(),
        }
    }
}

/// Chain and mempool.
#[derive(Default)]
pub struct Oracle {
    blocks: Vec<(Block, Vec<Named>)>,
    /// In order of arrival.
    mempool: Vec<Named>,
    /// Script hash and value of every output ever seen that can be spent: what an id stands for never changes.
    outputs: BTreeMap<OutPoint, (String, u64)>,
}

/// "The hash is SHA-256 of the script, and sent reversed."
pub fn script_hash(script: &Script) -> String {
    let mut bytes = sha256::Hash::hash(script.as_bytes()).to_byte_array();
    bytes.reverse();
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Oracle {
    pub fn connect(&mut self, block: &Block) {
        let transactions: Vec<Named> = block.txdata.iter().map(Named::of).collect();
        // "The Genesis block coinbase is uniquely unspendable and therefore not indexed."
        if !self.blocks.is_empty() {
            transactions.iter().for_each(|one| self.note(one));
        }
        self.mempool
            .retain(|one| transactions.iter().all(|taken| taken.id != one.id));
        self.blocks.push((block.clone(), transactions));
    }

    pub fn disconnect(&mut self) {
        self.blocks.pop();
    }

    pub fn add(&mut self, transaction: &Transaction) {
        let named = Named::of(transaction);
        self.note(&named);
        self.mempool.push(named);
    }

    pub fn drop(&mut self, txid: Txid) {
        self.mempool.retain(|one| one.id != txid);
    }

    pub fn mempool(&self) -> impl Iterator<Item = &Named> {
        self.mempool.iter()
    }

    pub fn outpoints(&self) -> Vec<OutPoint> {
        self.outputs.keys().copied().collect()
    }

    pub fn height(&self) -> usize {
        self.blocks.len() - 1
    }

    pub fn block(&self, height: usize) -> Option<&[Named]> {
        Some(&self.blocks.get(height)?.1)
    }

    fn note(&mut self, one: &Named) {
        for (vout, output) in (0..).zip(&one.body.output) {
            if !output.script_pubkey.is_op_return() {
                let coin = (script_hash(&output.script_pubkey), output.value.to_sat());
                self.outputs.insert(OutPoint::new(one.id, vout), coin);
            }
        }
    }

    /// What a transaction pays to a script, by output, in satoshis.
    fn pays(&self, one: &Named, script: &str) -> Vec<(u32, u64)> {
        let all = (0..one.body.output.len() as u32).filter_map(|vout| {
            let (owner, value) = self.outputs.get(&OutPoint::new(one.id, vout))?;
            (owner == script).then_some((vout, *value))
        });
        all.collect()
    }

    /// What a transaction spends of a script, in satoshis.
    fn spends(&self, one: &Named, script: &str) -> Vec<u64> {
        let inputs = one.body.input.iter();
        let coins = inputs.filter_map(|input| self.outputs.get(&input.previous_output));
        coins
            .filter(|(owner, _)| owner == script)
            .map(|(_, value)| *value)
            .collect()
    }

    fn touches(&self, one: &Named, script: &str) -> bool {
        !self.pays(one, script).is_empty() || !self.spends(one, script).is_empty()
    }

    /// "`0` if all inputs are confirmed, and `-1` otherwise."
    fn mempool_height(&self, one: &Named) -> i64 {
        let is_here = |id: Txid| self.mempool.iter().any(|other| other.id == id);
        let mut inputs = one.body.input.iter();
        match inputs.any(|input| is_here(input.previous_output.txid)) {
            true => -1,
            false => 0,
        }
    }

    fn fee(&self, one: &Named) -> u64 {
        let inputs = one.body.input.iter();
        let had: u64 = inputs
            .map(|input| self.outputs[&input.previous_output].1)
            .sum();
        let paid: u64 = one
            .body
            .output
            .iter()
            .map(|output| output.value.to_sat())
            .sum();
        had - paid
    }

    fn spender<'a>(all: &'a [Named], outpoint: &OutPoint) -> Option<&'a Named> {
        all.iter().find(|one| {
            let mut inputs = one.body.input.iter();
            inputs.any(|input| input.previous_output == *outpoint)
        })
    }

    fn confirmed(&self, script: &str) -> Vec<(usize, &Named)> {
        let mut list = Vec::new();
        for (height, (_, transactions)) in self.blocks.iter().enumerate().skip(1) {
            let concerned = transactions.iter().filter(|one| self.touches(one, script));
            list.extend(concerned.map(|one| (height, one)));
        }
        list
    }

    /// "Order mempool transactions by `(-height, tx_hash)`."
    fn unconfirmed(&self, script: &str) -> Vec<(i64, &Named)> {
        let concerned = self.mempool.iter().filter(|one| self.touches(one, script));
        let mut list: Vec<_> = concerned
            .map(|one| (self.mempool_height(one), one))
            .collect();
        list.sort_by_key(|(height, one)| (-height, one.id.to_string()));
        list
    }

    /// "The status is the sha256() hash of the full string expressed as a hexadecimal string, or null."
    pub fn status(&self, script: &str) -> Value {
        let mut text = String::new();
        for (height, one) in self.confirmed(script) {
            text += &format!("{}:{height}:", one.id);
        }
        for (height, one) in self.unconfirmed(script) {
            text += &format!("{}:{height}:", one.id);
        }
        match text.is_empty() {
            true => Value::Null,
            false => json!(hex(&sha256::Hash::hash(text.as_bytes()).to_byte_array())),
        }
    }

    fn mempool_list(&self, script: &str) -> Vec<Value> {
        let list = self.unconfirmed(script).into_iter();
        list.map(|(height, one)| {
            json!({"tx_hash": one.id.to_string(), "height": height, "fee": self.fee(one)})
        })
        .collect()
    }

    fn history(&self, script: &str) -> Vec<Value> {
        let confirmed = self.confirmed(script).into_iter();
        let mut list: Vec<Value> = confirmed
            .map(|(height, one)| json!({"tx_hash": one.id.to_string(), "height": height}))
            .collect();
        list.extend(self.mempool_list(script));
        list
    }

    fn is_spent_in_chain(&self, outpoint: &OutPoint) -> bool {
        let mut blocks = self.blocks.iter();
        blocks.any(|(_, all)| Self::spender(all, outpoint).is_some())
    }

    /// What blocks made and no block spent: height and transaction, output and value.
    fn coins(&self, script: &str) -> Vec<(usize, Txid, u32, u64)> {
        let mut list = Vec::new();
        for (height, one) in self.confirmed(script) {
            for (vout, value) in self.pays(one, script) {
                if !self.is_spent_in_chain(&OutPoint::new(one.id, vout)) {
                    list.push((height, one.id, vout, value));
                }
            }
        }
        list
    }

    fn balance(&self, script: &str) -> Value {
        let confirmed: u64 = self.coins(script).iter().map(|coin| coin.3).sum();
        let mut delta = 0i64;
        for one in &self.mempool {
            let gains = self
                .pays(one, script)
                .iter()
                .map(|(_, value)| *value as i64)
                .sum::<i64>();
            delta += gains;
            delta -= self.spends(one, script).iter().sum::<u64>() as i64;
        }
        json!({"confirmed": confirmed, "unconfirmed": delta})
    }

    /// "Any output that is spent in the mempool does not appear." Those of the mempool come last, in no order.
    fn unspent(&self, script: &str) -> Vec<Value> {
        let mut all = self.coins(script);
        for one in &self.mempool {
            let made = self.pays(one, script).into_iter();
            all.extend(made.map(|(vout, value)| (0, one.id, vout, value)));
        }
        all.retain(|coin| Self::spender(&self.mempool, &OutPoint::new(coin.1, coin.2)).is_none());
        let item = |(height, txid, vout, value): (usize, Txid, u32, u64)| json!({"height": height, "tx_hash": txid.to_string(), "tx_pos": vout, "value": value});
        all.into_iter().map(item).collect()
    }

    /// As ElectrumX tells it: `{}` if there is no such output, also for that of the genesis block.
    pub fn outpoint(&self, outpoint: &OutPoint) -> Value {
        let index = outpoint.vout as usize;
        let made_it = |one: &Named| one.id == outpoint.txid && index < one.body.output.len();
        let mut funder = None;
        let mut spender = None;
        for (height, (_, all)) in self.blocks.iter().enumerate().skip(1) {
            if all.iter().any(made_it) {
                funder = Some(height as i64);
            }
            if let Some(one) = Self::spender(all, outpoint) {
                spender = Some((one.id, height as i64));
            }
        }
        if let Some(one) = self.mempool.iter().find(|one| made_it(one)) {
            funder = Some(self.mempool_height(one));
        }
        if let Some(one) = Self::spender(&self.mempool, outpoint) {
            spender = Some((one.id, self.mempool_height(one)));
        }
        match (funder, spender) {
            (None, _) => json!({}),
            (Some(funder), None) => json!({"funder_height": funder}),
            (Some(funder), Some((txid, height))) => json!({
                "funder_height": funder, "spender_txhash": txid.to_string(), "spender_height": height,
            }),
        }
    }

    /// ElectrumX's `_compress_histogram`; the protocol leaves the steps open.
    fn fee_histogram(&self) -> Value {
        let mut by_rate: Vec<(f64, u64)> = Vec::new();
        for one in &self.mempool {
            let size = one.body.vsize() as u64;
            let rate = (10.0 * (self.fee(one) as f64 / size as f64)).floor() / 10.0;
            match by_rate.iter_mut().find(|(other, _)| *other == rate) {
                Some((_, sum)) => *sum += size,
                None => by_rate.push((rate, size)),
            }
        }
        by_rate.sort_by(|one, other| other.0.total_cmp(&one.0));
        let mut told = Vec::new();
        let mut bin = 30_000.0;
        let mut sum = 0;
        let mut previous = None;
        for (rate, size) in by_rate {
            if let Some(previous) = previous
                && size as f64 > 2.0 * bin
                && sum > 0
            {
                told.push(json!([previous, sum]));
                sum = 0;
                bin *= 1.1;
            }
            sum += size;
            if sum as f64 > bin {
                told.push(json!([rate, sum]));
                sum = 0;
                bin *= 1.1;
            }
            previous = Some(rate);
        }
        json!(told)
    }

    /// "A list of the last 10 transactions to enter the mempool", the last first.
    fn recent(&self) -> Value {
        let last = self.mempool.iter().rev().take(10);
        let item = |one: &Named| json!({"txid": one.id.to_string(), "fee": self.fee(one), "vsize": one.body.vsize()});
        last.map(item).collect()
    }

    /// Root and branch of one leaf, "deepest pairing first"; a lonely node is paired with itself.
    fn merkle(mut row: Vec<sha256d::Hash>, mut index: usize) -> (String, Vec<String>) {
        let mut branch = Vec::new();
        while row.len() > 1 {
            if row.len() % 2 == 1 {
                row.extend(row.last().copied());
            }
            branch.push(row[index ^ 1].to_string());
            let join = |pair: &[sha256d::Hash]| {
                sha256d::Hash::hash(&[pair[0].to_byte_array(), pair[1].to_byte_array()].concat())
            };
            row = row.chunks(2).map(join).collect();
            index /= 2;
        }
        (row[0].to_string(), branch)
    }

    fn header(&self, height: usize) -> String {
        serialize_hex(&self.blocks[height].0.header)
    }

    fn prove_header(&self, told: &mut Value, height: usize, checkpoint: u64) -> Result<(), i64> {
        if !(height as u64 <= checkpoint && checkpoint <= self.height() as u64) {
            return Err(BAD_REQUEST);
        }
        let up_to = &self.blocks[..=checkpoint as usize];
        let leaves = up_to
            .iter()
            .map(|(block, _)| block.block_hash().to_raw_hash());
        let (root, branch) = Self::merkle(leaves.collect(), height);
        told["root"] = json!(root);
        told["branch"] = json!(branch);
        Ok(())
    }

    fn block_header(&self, height: u64, checkpoint: u64) -> Result<Value, i64> {
        if height > self.height() as u64 {
            return Err(BAD_REQUEST);
        }
        let header = self.header(height as usize);
        if checkpoint == 0 {
            return Ok(json!(header));
        }
        let mut told = json!({"header": header});
        self.prove_header(&mut told, height as usize, checkpoint)?;
        Ok(told)
    }

    fn block_headers(
        &self,
        (start, count, checkpoint): (u64, u64, u64),
        version: Version,
    ) -> Result<Value, i64> {
        let there = (self.blocks.len() as u64).saturating_sub(start);
        let count = count.min(2_016).min(there);
        let heights = (start..start + count).map(|height| height as usize);
        let headers: Vec<String> = heights.map(|height| self.header(height)).collect();
        let mut told = json!({"count": count, "max": 2_016});
        match version < V1_6 {
            true => told["hex"] = json!(headers.concat()),
            false => told["headers"] = json!(headers),
        }
        if count > 0 && checkpoint > 0 {
            self.prove_header(&mut told, (start + count - 1) as usize, checkpoint)?;
        }
        Ok(told)
    }

    fn transaction(&self, txid: &str) -> Result<Value, i64> {
        let blocks = self.blocks.iter().flat_map(|(_, all)| all);
        let mut all = blocks.chain(&self.mempool);
        let found = all.find(|one| one.id.to_string() == txid);
        // ElectrumX passes on that the daemon does not know it.
        found.map_or(Err(DAEMON_ERROR), |one| Ok(json!(serialize_hex(&one.body))))
    }

    fn place(&self, height: u64, position: usize) -> (String, Vec<String>) {
        let all = &self.blocks[height as usize].1;
        let leaves = all.iter().map(|one| one.id.to_raw_hash()).collect();
        (
            all[position].id.to_string(),
            Self::merkle(leaves, position).1,
        )
    }

    fn get_merkle(&self, txid: &str, height: u64) -> Result<Value, i64> {
        let block = self.block(height as usize).ok_or(BAD_REQUEST)?;
        let position = block.iter().position(|one| one.id.to_string() == txid);
        let position = position.ok_or(BAD_REQUEST)?;
        let (_, branch) = self.place(height, position);
        Ok(json!({"block_height": height, "merkle": branch, "pos": position}))
    }

    fn id_from_pos(&self, height: u64, position: u64, merkle: bool) -> Result<Value, i64> {
        let block = self.block(height as usize).ok_or(BAD_REQUEST)?;
        if position >= block.len() as u64 {
            return Err(BAD_REQUEST);
        }
        let (txid, branch) = self.place(height, position as usize);
        Ok(match merkle {
            true => json!({"tx_hash": txid, "merkle": branch}),
            false => json!(txid),
        })
    }

    /// What a call is answered, or with which code it is refused.
    pub fn answer(&self, method: &str, params: &[Value], version: Version) -> Result<Value, i64> {
        let least = match method {
            "mempool.get_fee_histogram" | "mempool.recent" | "blockchain.headers.subscribe" => 0,
            "blockchain.block.headers"
            | "blockchain.transaction.get_merkle"
            | "blockchain.transaction.id_from_pos" => 2,
            "blockchain.outpoint.get_status" | "blockchain.outpoint.subscribe" => 3,
            _ => 1,
        };
        let most = match method {
            "blockchain.block.header"
            | "blockchain.block.headers"
            | "blockchain.transaction.id_from_pos"
            | "blockchain.transaction.get" => least + 1,
            _ => least,
        };
        let is_new = method.contains(".scriptpubkey.")
            || method.contains(".outpoint.")
            || method == "mempool.recent";
        if is_new && version < V1_7 || method.contains(".scripthash.") && version >= V1_7 {
            return Err(NO_METHOD);
        }
        if !(least..=most).contains(&params.len()) {
            return Err(INVALID_PARAMS);
        }
        match method.strip_prefix("blockchain.scripthash.") {
            Some(what) => self.of_script(what, &digits(&params[0], Some(64))?, version),
            None => match method.strip_prefix("blockchain.scriptpubkey.") {
                Some(what) => {
                    let text = digits(&params[0], None)?;
                    let script = bitcoin::ScriptBuf::from_hex(&text).map_err(|_| BAD_REQUEST)?;
                    self.of_script(what, &script_hash(&script), version)
                }
                None => self.of_chain(method, params, version),
            },
        }
    }

    fn of_script(&self, what: &str, script: &str, version: Version) -> Result<Value, i64> {
        let listed = |name: &str, list: Vec<Value>| match version < V1_7 {
            true => json!(list),
            false => json!({name: list}),
        };
        Ok(match what {
            "get_balance" => self.balance(script),
            "get_history" => listed("history", self.history(script)),
            "get_mempool" => listed("history", self.mempool_list(script)),
            "listunspent" => listed("utxos", self.unspent(script)),
            "subscribe" => self.status(script),
            _ => return Err(NO_METHOD),
        })
    }

    fn of_chain(&self, method: &str, params: &[Value], version: Version) -> Result<Value, i64> {
        let optional = |index: usize| params.get(index).map_or(Ok(0), natural);
        let flag = |index: usize| match params.get(index) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or(BAD_REQUEST),
        };
        match method {
            "blockchain.block.header" => self.block_header(natural(&params[0])?, optional(1)?),
            "blockchain.block.headers" => {
                let numbers = (natural(&params[0])?, natural(&params[1])?, optional(2)?);
                self.block_headers(numbers, version)
            }
            "blockchain.headers.subscribe" => {
                Ok(json!({"height": self.height(), "hex": self.header(self.height())}))
            }
            "blockchain.transaction.get" => {
                let txid = digits(&params[0], Some(64))?;
                match flag(1)? {
                    true => Err(NO_METHOD),
                    false => self.transaction(&txid),
                }
            }
            "blockchain.transaction.get_merkle" => {
                self.get_merkle(&digits(&params[0], Some(64))?, natural(&params[1])?)
            }
            "blockchain.transaction.id_from_pos" => {
                self.id_from_pos(natural(&params[0])?, natural(&params[1])?, flag(2)?)
            }
            "blockchain.outpoint.get_status" | "blockchain.outpoint.subscribe" => {
                let txid = digits(&params[0], Some(64))?;
                let vout = natural(&params[1])? as u32;
                digits(&params[2], None)?;
                let txid = txid.parse().map_err(|_| BAD_REQUEST)?;
                Ok(self.outpoint(&OutPoint { txid, vout }))
            }
            "mempool.get_fee_histogram" => Ok(self.fee_histogram()),
            "mempool.recent" => Ok(self.recent()),
            _ => Err(NO_METHOD),
        }
    }
}

/// "A non-negative integer."
fn natural(value: &Value) -> Result<u64, i64> {
    value.as_u64().ok_or(BAD_REQUEST)
}

/// "As a hexadecimal string", of so many digits if that is known.
fn digits(value: &Value, length: Option<usize>) -> Result<String, i64> {
    let text = value.as_str().ok_or(BAD_REQUEST)?;
    let is_sound = text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && length.map_or(text.len() % 2 == 0, |length| text.len() == length);
    is_sound.then(|| text.to_lowercase()).ok_or(BAD_REQUEST)
}
