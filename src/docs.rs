//! The nine pages of documentation, as they are in the repository's folder `docs`. They exist in
//! the documentation only.
//!
//! A page names another page by a reference such as `[durability#the-promise]`.
//! `docs/rustdoc-links.txt` leads it to the module here. That file comes first, and the first
//! definition of a reference counts.

/// A module with a page as its documentation.
macro_rules! page {
    ($name:ident, $file:literal) => {
        #[doc = include_str!("../docs/rustdoc-links.txt")]
        #[doc = include_str!(concat!("../docs/", $file, ".md"))]
        pub mod $name {}
    };
}

page!(architecture, "architecture");
page!(ordering, "ordering");
page!(durability, "durability");
page!(format, "format");
page!(operating, "operating");
page!(embedding, "embedding");
page!(testing, "testing");
page!(benchmarks, "benchmarks");
page!(unsafe_files, "unsafe");
