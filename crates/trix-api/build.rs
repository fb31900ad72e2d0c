//! Lets cargo build this crate anew when files of the UI come or go: the derive
//! that embeds them notices changes of those that it has seen only.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_UI").is_some() {
        println!("cargo::rerun-if-changed=../../ui/dist");
    }
}
