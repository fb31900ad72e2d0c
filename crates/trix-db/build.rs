//! `sqlx::migrate!` embeds the folder, but cargo only watches Rust files by itself.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
