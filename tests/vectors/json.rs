//! Values of the vectors: numbers up to 32 bits are JSON numbers, wider ones strings like "0x2a", bytes are hex.

use serde_json::Value;

pub fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("text expected: {value}"))
}

pub fn number(value: &Value) -> u32 {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.unwrap_or_else(|| panic!("a number of 32 bits expected: {value}"))
}

pub fn short(value: &Value) -> u16 {
    u16::try_from(number(value)).expect("a number of 16 bits")
}

pub fn byte(value: &Value) -> u8 {
    u8::try_from(number(value)).expect("a number of 8 bits")
}

pub fn flag(value: &Value) -> bool {
    value
        .as_bool()
        .unwrap_or_else(|| panic!("true or false expected: {value}"))
}

pub fn wide(value: &Value) -> u64 {
    let digits = text(value)
        .strip_prefix("0x")
        .expect("a wide number starts with 0x");
    u64::from_str_radix(digits, 16).expect("hexadecimal")
}

pub fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("a list expected: {value}"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn bytes(value: &Value) -> Vec<u8> {
    let digits: Vec<char> = text(value).chars().collect();
    assert!(
        digits.len().is_multiple_of(2),
        "whole bytes expected: {value}"
    );
    let pair = |pair: &[char]| pair.iter().collect::<String>();
    digits
        .chunks(2)
        .map(|two| u8::from_str_radix(&pair(two), 16).expect("hex"))
        .collect()
}
