//! The page of the state machines is drawn from the code.

use std::path::Path;

#[test]
fn the_page_of_the_states_shows_what_the_code_does() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/states.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (head, _) = text.split_once("<!-- drawn -->\n").expect("the page has its mark");
    let right = format!("{head}<!-- drawn -->\n{}", trix_model::state::diagram());
    if text != right && std::env::var_os("TRIX_WRITE_DOCS").is_some() {
        std::fs::write(&page, &right).unwrap();
        return;
    }
    assert!(text == right, "docs/states.md is stale; TRIX_WRITE_DOCS=1 writes it anew");
}
