//! A second x265 may be in the process through a shared libavcodec: neither may be taken for the other.

use std::process::Command;

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{program} (package binutils): {e}"));
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_symbol_of_x265_in_the_archives_is_hidden() {
    let mut defined = 0;
    for archive in env!("TRIX_NATIVE_ARCHIVES").split(':') {
        for line in output("readelf", &["--syms", "--wide", archive]).lines() {
            // Num: Value Size Type Bind Vis Ndx Name
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, _, _, _, bind, visibility, section, name] = words[..] else { continue };
            // The C++ library's own templates keep the visibility that its headers give them.
            if section == "UND" || !matches!(bind, "GLOBAL" | "WEAK") || !name.contains("x265") {
                continue;
            }
            assert_eq!(visibility, "HIDDEN", "{name} in {archive}");
            defined += 1;
        }
    }
    assert!(defined > 3000, "only {defined} symbols were seen");
}

#[test]
fn the_binary_that_links_it_exports_none_of_its_symbols() {
    // The test binary does hold x265: it is called, or the linker would have left it out.
    // SAFETY: any number may be asked for.
    assert!(!unsafe { trix_x265_sys::api_get(8) }.is_null());
    let own = std::env::current_exe().unwrap();
    let exported = output("nm", &["--dynamic", own.to_str().unwrap()]);
    assert!(!exported.contains("x265"), "{exported}");
}
