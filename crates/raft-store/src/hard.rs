//! The hard state: the vote, and what was purged.

use serde::{Deserialize, Serialize};

use crate::consensus::{NodeTag, RaftLogId, RaftVote};

/// The content of the hard state. Its bytes are the same under every adapter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) struct HardState<N: NodeTag> {
    pub(crate) vote: Option<RaftVote<N>>,
    /// The committed log id when another field here changed last. The frames of the log record it
    /// too, and lastingly.
    pub(crate) committed: Option<RaftLogId<N>>,
    /// The last log id that the library has purged. The log itself removes only whole segments that
    /// a snapshot covers. The value is never past the state.
    pub(crate) purged: Option<RaftLogId<N>>,
}

impl<N: NodeTag> Default for HardState<N> {
    fn default() -> Self {
        Self { vote: None, committed: None, purged: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::data::{decode, encode};

    #[test]
    fn the_bytes_of_the_hard_state_are_those_of_the_first_release() {
        let state = HardState::<u64> {
            vote: Some(RaftVote::new(300, 7, true)),
            committed: Some(RaftLogId::new(2, 1, 1000)),
            purged: None,
        };
        let bytes = [1, 0xac, 2, 7, 1, 1, 2, 1, 0xe8, 7, 0];
        assert_eq!(encode(&state).unwrap(), bytes);
        assert_eq!(decode::<HardState<u64>>(&bytes).unwrap(), state);
        assert_eq!(encode(&HardState::<u64>::default()).unwrap(), [0, 0, 0]);
    }
}
