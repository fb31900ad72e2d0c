//! A second x264 may be in the process through a shared libavcodec: neither may be taken for the other.

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
fn every_defined_symbol_of_the_archive_is_hidden() {
    let mut defined = 0;
    for archive in env!("TRIX_NATIVE_ARCHIVES").split(':') {
        for line in output("readelf", &["--syms", "--wide", archive]).lines() {
            // Num: Value Size Type Bind Vis Ndx Name
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, _, _, _, bind, visibility, section, name] = words[..] else { continue };
            if section == "UND" || !matches!(bind, "GLOBAL" | "WEAK") {
                continue;
            }
            assert_eq!(visibility, "HIDDEN", "{name}");
            defined += 1;
        }
    }
    assert!(defined > 500, "only {defined} symbols were seen");
}

#[test]
fn the_binary_that_links_it_exports_none_of_its_symbols() {
    // The test binary does hold x264: it is called, or the linker would have left it out.
    // SAFETY: the function reads nothing that was not given to it.
    let name = unsafe { trix_x264_sys::x264_levels.as_ptr().read().level_idc };
    assert_eq!(name, 10);
    let own = std::env::current_exe().unwrap();
    let exported = output("nm", &["--dynamic", own.to_str().unwrap()]);
    assert!(!exported.contains("x264"), "{exported}");
}
