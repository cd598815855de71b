//! Whose queue it is that stands.
//!
//! A sender that yields to queues and one that fills them until they overflow can't share a link: the first sees a queue
//! whatever it does, and slows down until it is silent. So it must know when to stop yielding. Two things tell: a queue
//! that stood before anything of ours could have made it, and one that stays although we yielded for long enough to empty
//! what we may have in flight. Then the path is used as BBR uses it: at the rate that is delivered, probing, with two round
//! trips' worth in flight at the most, which leaves others their share. A round that finds the queue empty ends that, as in
//! Copa's competitive mode (Arun and Balakrishnan, NSDI 2018, section 2.2).

use super::PROBE_DOWN_GAIN;

/// Rounds of yielding that empty any queue of ours: the window is two round trips' worth, of which one is queue.
const PATIENCE: u32 = (100 / (100 - PROBE_DOWN_GAIN)) as u32;

/// Whether others fill the queue, and what is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Rivals {
    /// Nothing yet: nothing was reported since the path was silent.
    #[default]
    Unknown,
    /// None, or none that matter; so many rounds in a row a queue stood while we yielded.
    None(u32),
    /// The queue is theirs.
    There,
}

impl Rivals {
    /// Takes in the first report after a silence: whether what left first met a queue, which can't be ours.
    pub fn note_first(&mut self, met_queue: bool) {
        if *self == Self::Unknown {
            *self = if met_queue {
                Self::There
            } else {
                Self::None(0)
            };
        }
    }

    /// Takes in a round, in which a queue stood or not, and in which we yielded to one or not. Gives whether it is theirs.
    pub fn are_there(&mut self, stands: bool, yields: bool) -> bool {
        *self = match *self {
            _ if !stands => Self::None(0),
            Self::There => Self::There,
            Self::None(rounds) if yields && rounds + 1 >= PATIENCE => Self::There,
            Self::None(rounds) => Self::None(rounds + u32::from(yields)),
            Self::Unknown => Self::Unknown,
        };
        *self == Self::There
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_stood_before_us_is_theirs_until_it_is_empty() {
        let mut rivals = Rivals::default();
        assert!(!rivals.are_there(true, true));
        rivals.note_first(true);
        assert!(rivals.are_there(true, false));
        assert!(!rivals.are_there(false, false));
        rivals.note_first(true);
        assert!(!rivals.are_there(true, false));
    }

    #[test]
    fn a_queue_that_stays_though_we_yield_is_theirs() {
        let mut rivals = Rivals::default();
        rivals.note_first(false);
        assert!(!rivals.are_there(true, false));
        for _ in 1..PATIENCE {
            assert!(!rivals.are_there(true, true));
        }
        assert!(rivals.are_there(true, true));
        assert!(rivals.are_there(true, false));
    }
}
