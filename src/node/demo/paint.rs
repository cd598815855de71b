//! Colours and cells as text. Pure.

use super::progress::{NodeProgress, Origin};

/// Colours of the nodes, of the 256 that terminals have; they read on light and on dark ground, and neighbours
/// in the list are far apart. After the last the first comes again.
const PALETTE: [u8; 12] = [33, 208, 35, 170, 178, 37, 160, 98, 106, 169, 67, 137];
/// What tells nodes apart where there are no colours.
const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// How to paint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    /// Whether escape sequences may be used; otherwise letters stand for colours.
    pub colours: bool,
}

impl Paint {
    /// `text` in the colour of a node.
    pub fn node(self, node: usize, text: &str) -> String {
        let colour = PALETTE.get(node % PALETTE.len()).copied().unwrap_or(7);
        self.escaped(&format!("38;5;{colour}"), text)
    }

    /// `text`, standing back.
    pub fn faint(self, text: &str) -> String {
        self.escaped("2", text)
    }

    /// `text`, standing out.
    pub fn bold(self, text: &str) -> String {
        self.escaped("1", text)
    }

    /// `text` as something that went wrong.
    pub fn alarming(self, text: &str) -> String {
        self.escaped("31", text)
    }

    fn escaped(self, code: &str, text: &str) -> String {
        match self.colours && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// A row of `width` cells: what a node has, each cell painted by where it came from.
    pub fn bar(self, progress: &NodeProgress, width: usize) -> String {
        let chunks = progress.chunks.len();
        let cells: Vec<Cell> = (0..width)
            .map(|cell| match chunks {
                0 => Cell::Empty,
                _ => {
                    let first = cell * chunks / width;
                    let end = ((cell + 1) * chunks / width).max(first + 1);
                    Cell::of(progress.chunks.get(first..end).unwrap_or_default())
                }
            })
            .collect();
        // Cells that look alike share their escape sequences.
        cells
            .chunk_by(|one, other| one == other)
            .map(|alike| {
                alike
                    .first()
                    .map_or(String::new(), |cell| self.cells(*cell, alike.len()))
            })
            .collect()
    }

    fn cells(self, cell: Cell, count: usize) -> String {
        let (origin, sign) = match cell {
            Cell::Empty => return self.faint(&"·".repeat(count)),
            Cell::Part(origin) => (origin, "▒"),
            Cell::Full(origin) => (origin, "█"),
        };
        let node = match origin {
            Origin::Own => Some(0),
            Origin::Node(node) => Some(node),
            Origin::Unknown => None,
        };
        match (node, self.colours) {
            (Some(node), true) => self.node(node, &sign.repeat(count)),
            (None, true) => sign.repeat(count),
            (Some(node), false) => letter(node).to_string().repeat(count),
            (None, false) => "?".repeat(count),
        }
    }
}

/// The letter of a node where there are no colours.
pub fn letter(node: usize) -> char {
    LETTERS.get(node).map_or('#', |letter| char::from(*letter))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Empty,
    Part(Origin),
    Full(Origin),
}

impl Cell {
    /// Several chunks in one cell: the last of them that is here gives the colour.
    fn of(chunks: &[Option<Origin>]) -> Self {
        let Some(origin) = chunks.iter().flatten().last() else {
            return Self::Empty;
        };
        match chunks.iter().all(Option::is_some) {
            true => Self::Full(*origin),
            false => Self::Part(*origin),
        }
    }
}

/// A number with a comma after each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_for_chunks_whatever_their_number() {
        let plain = Paint { colours: false };
        let bar = |chunks: &[Option<Origin>], width| {
            let progress = NodeProgress {
                chunks: chunks.to_vec(),
                ..NodeProgress::default()
            };
            plain.bar(&progress, width)
        };
        assert_eq!(bar(&[], 4), "····");
        let two = [Some(Origin::Node(3)), None];
        assert_eq!(bar(&two, 4), "33··");
        assert_eq!(bar(&two, 1), "3");
        assert_eq!(bar(&[Some(Origin::Own); 130], 5), "00000");
        let progress = NodeProgress {
            chunks: two.to_vec(),
            ..NodeProgress::default()
        };
        let colours = Paint { colours: true }.bar(&progress, 4);
        assert_eq!(colours, "\x1b[38;5;170m██\x1b[0m\x1b[2m··\x1b[0m");
    }

    #[test]
    fn numbers_are_grouped() {
        let text: Vec<String> = [0, 12, 999, 1_000, 1_381_836].map(grouped).into();
        assert_eq!(text, ["0", "12", "999", "1,000", "1,381,836"]);
    }
}
