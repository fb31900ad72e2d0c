//! Raw declarations from the libraries' own headers.
//!
//! C enums become integer constants: a value that the header doesn't name must not be undefined behaviour.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bindgen::{EnumVariation, MacroTypeVariation, RustEdition};

use crate::error::{Error, Result};

/// What is bound.
pub(crate) struct Header<'a> {
    /// The name of the header, which alone is bound (not what it includes).
    pub(crate) name: &'a str,
    /// Standard headers that it expects to have been included.
    pub(crate) before: &'a [&'a str],
    /// Where it and the generated headers are.
    pub(crate) include: &'a [PathBuf],
    /// Lines of Rust that follow the declarations.
    pub(crate) after: Vec<String>,
}

/// Writes the declarations to `to`.
pub(crate) fn write(header: &Header<'_>, to: &Path) -> Result<()> {
    let includes: String = header
        .before
        .iter()
        .map(|name| format!("#include <{name}>\n"))
        .chain([format!("#include <{}>\n", header.name)])
        .collect();
    let mut builder = bindgen::Builder::default()
        .header_contents("wrapper.h", &includes)
        .allowlist_file(format!(".*/{}", header.name.replace('.', "\\.")))
        .allowlist_file(".*/x26[45]_config\\.h")
        .default_enum_style(EnumVariation::Consts)
        .default_macro_constant_type(MacroTypeVariation::Signed)
        .prepend_enum_name(false)
        .layout_tests(false)
        // The headers' comments are C prose, which rustdoc would read as broken links.
        .generate_comments(false)
        .rust_edition(RustEdition::Edition2024)
        .formatter(bindgen::Formatter::None);
    for path in header.include {
        builder = builder.clang_arg(format!("-I{}", path.display()));
    }
    for line in &header.after {
        builder = builder.raw_line(line);
    }
    // bindgen panics when it can't load libclang, and that is the likeliest failure on a new machine.
    let generate = AssertUnwindSafe(|| builder.generate());
    let generated = catch_unwind(generate).map_err(|_| {
        Error::new(
            "bindgen can't load libclang: run scripts/setup, or install the package libclang-dev",
        )
    })?;
    generated
        .map_err(|e| {
            Error::new(format!("the declarations of {} can't be generated: {e}", header.name))
        })?
        .write_to_file(to)
        .map_err(|e| Error::io("writing", to, &e))
}

/// The number that `#define NAME` gives in a header: the API version, which is a part of function names.
pub(crate) fn defined_number(header: &Path, name: &str) -> Result<u32> {
    let text = std::fs::read_to_string(header).map_err(|e| Error::io("reading", header, &e))?;
    text.lines()
        .find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(name))
                .then(|| words.next()?.parse().ok())
                .flatten()
        })
        .ok_or_else(|| Error::new(format!("{} defines no number {name}", header.display())))
}
