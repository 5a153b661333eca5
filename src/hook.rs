//! The key to the calls of public traits that only the engine makes.

/// Seals a call of a public trait: only the crate makes this value, and nothing outside can name
/// its type.
///
/// An embedder can implement the trait, and can neither call nor override what takes a hook. So
/// such a call may change in any version. Only a build with the feature `testing` shows a value,
/// for tests that wrap a machine: `testing::hooks`.
#[derive(Clone, Copy, Debug)]
pub struct Hook(());

impl Hook {
    pub(crate) const ENGINE: Self = Self(());
}
