//! The text of `--version`.

use std::sync::OnceLock;

use sprag::inspect::{FORMAT_VERSIONS, FormatVersions};

/// The version of the command, its commit (if the build knew it), and the formats that it writes.
pub(crate) fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let FormatVersions { slots, frames, snapshots, .. } = FORMAT_VERSIONS;
        let commit =
            option_env!("SPRAG_COMMIT").map_or(String::new(), |commit| format!(" ({commit})"));
        format!(
            "{}{commit}, format: META and HARD {slots}, frames {frames}, snapshots {snapshots}",
            env!("CARGO_PKG_VERSION")
        )
    })
}
