//! Prints the OpenAPI document: `cargo run -p trix-api --example openapi > ui/openapi.json`.

fn main() {
    println!("{}", trix_api::openapi_json());
}
