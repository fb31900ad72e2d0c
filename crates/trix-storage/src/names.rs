//! Names: slugs of titles, file names that every file system takes, and collisions.

use std::collections::HashMap;

use trix_model::path::fold;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::error::{Result, StorageError};

/// A slug is at most so long; a longer one ends with a hash of the whole title.
const SLUG_LIMIT: usize = 80;
/// Bytes of a safe file name, extension included. Below the 255 of file systems, since encrypted
/// and network ones take less and a temporary suffix may be added.
const NAME_LIMIT: usize = 200;

/// A title as a folder's name: `a-z`, `0-9` and `-` only, never empty.
///
/// Cyrillic is written after GOST 7.79 system B without its accents (ь, ъ, and the marks of ы
/// and э, are left out, since they are no letters in a URL). Accented Latin letters lose their
/// accents; letters of other scripts become `u` and their code point in hexadecimal.
pub fn slug(title: &str) -> String {
    let mut out = String::new();
    let mut gap = false;
    let letters: Vec<char> = title.nfc().flat_map(char::to_lowercase).collect();
    for (i, &c) in letters.iter().enumerate() {
        let next = letters.get(i + 1).copied();
        let mut piece = String::new();
        if c.is_ascii_alphanumeric() {
            piece.push(c);
        } else if let Some(latin) = cyrillic(c, next).or_else(|| special_latin(c)) {
            piece.push_str(latin);
            if latin.is_empty() {
                // ь and ъ join what stands around them.
                continue;
            }
        } else if matches!(c, '\'' | '’' | '`' | 'ʼ') || is_combining_mark(c) {
            continue;
        } else if c.is_alphanumeric() {
            let plain: String =
                std::iter::once(c).nfkd().filter(char::is_ascii_alphanumeric).collect();
            if plain.is_empty() {
                piece = format!("-u{:x}", c as u32);
                gap = false;
            } else {
                piece = plain.to_ascii_lowercase();
            }
        }
        if piece.is_empty() {
            gap = true;
            continue;
        }
        if gap && !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.is_empty() {
            piece = piece.trim_start_matches('-').to_owned();
        }
        gap = false;
        out.push_str(&piece);
    }
    if out.is_empty() {
        return format!("title-{}", short_hash(title));
    }
    if out.len() > SLUG_LIMIT {
        // Two long titles may differ at their ends only.
        let keep = SLUG_LIMIT - 13;
        let cut = out[..keep].rfind('-').filter(|at| *at > keep / 2).unwrap_or(keep);
        out.truncate(cut);
        out.push('-');
        out.push_str(&short_hash(title));
    }
    out
}

fn short_hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..12].to_owned()
}

fn cyrillic(c: char, next: Option<char>) -> Option<&'static str> {
    Some(match c {
        'а' => "a",
        'б' => "b",
        'в' => "v",
        'г' | 'ґ' => "g",
        'д' => "d",
        'е' | 'э' => "e",
        'ё' => "yo",
        'є' => "ye",
        'ж' => "zh",
        'з' => "z",
        'и' | 'і' => "i",
        'ї' => "yi",
        'й' => "j",
        'к' => "k",
        'л' => "l",
        'м' => "m",
        'н' => "n",
        'о' => "o",
        'п' => "p",
        'р' => "r",
        'с' => "s",
        'т' => "t",
        'у' | 'ў' => "u",
        'ф' => "f",
        'х' => "x",
        // The standard writes c before i, e, y and j, and cz elsewhere.
        'ц' => match next {
            Some('и' | 'е' | 'э' | 'ё' | 'ы' | 'й' | 'ю' | 'я' | 'і' | 'ї' | 'є') => "c",
            _ => "cz",
        },
        'ч' => "ch",
        'ш' => "sh",
        'щ' => "shh",
        'ъ' | 'ь' => "",
        'ы' => "y",
        'ю' => "yu",
        'я' => "ya",
        _ => return None,
    })
}

fn special_latin(c: char) -> Option<&'static str> {
    Some(match c {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'đ' | 'ð' => "d",
        'ł' => "l",
        'þ' => "th",
        'ı' => "i",
        _ => return None,
    })
}

/// Fails if two of the names are one name on some file system, or if one would have to be a
/// file and a folder at once.
pub fn refuse_collisions<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<()> {
    let mut seen: HashMap<String, (&str, bool)> = HashMap::new();
    let collide = |first: &str, second: &str| {
        Err(StorageError::NameCollision { first: first.to_owned(), second: second.to_owned() })
    };
    for name in names {
        for (at, _) in name.match_indices('/') {
            let folder = &name[..at];
            match seen.insert(fold(folder), (folder, true)) {
                // The same folder in other letters is two folders here and one there.
                Some((other, is_folder)) if !is_folder || other != folder => {
                    return collide(other, name);
                }
                _ => {}
            }
        }
        if let Some((other, _)) = seen.insert(fold(name), (name, false)) {
            return collide(other, name);
        }
    }
    Ok(())
}

/// A file name that Linux, Windows and macOS all take: `stem` without what they refuse, and
/// `extension` (without dot) behind it. Letters of all scripts stay.
pub fn safe_name(stem: &str, extension: &str) -> String {
    let mut name: String = stem
        .nfc()
        .map(|c| match c {
            '<' | '>' | ':' | '"' | '/' | '\\' | '|' | '?' | '*' => '_',
            c if c.is_control() || is_direction_mark(c) => '_',
            c => c,
        })
        .collect();
    let room = NAME_LIMIT.saturating_sub(extension.len() + 1);
    if name.len() > room {
        let mut cut = room;
        while !name.is_char_boundary(cut) {
            cut -= 1;
        }
        name.truncate(cut);
    }
    // Windows drops blanks and dots at the end; a dot at the beginning hides the file.
    let trimmed = name.trim_end_matches([' ', '.']).trim_start_matches([' ', '.']);
    let mut name = if trimmed.is_empty() { "_".to_owned() } else { trimmed.to_owned() };
    let device = name.split('.').next().unwrap_or("").trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        device
            .strip_prefix(prefix)
            .is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
    };
    if matches!(device.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || numbered("COM")
        || numbered("LPT")
    {
        name.insert(0, '_');
    }
    if extension.is_empty() { name } else { format!("{name}.{extension}") }
}

/// Marks that turn the direction of text can make `gpj.exe` look like `exe.jpg`.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_plain_slugs() {
        for (title, wanted) in [
            ("Ирония судьбы, или С лёгким паром!", "ironiya-sudby-ili-s-lyogkim-parom"),
            ("Цирк", "cirk"),
            ("Отцы и дети", "otcy-i-deti"),
            ("Царь", "czar"),
            ("Щелкунчик: Подъезд № 5", "shhelkunchik-podezd-5"),
            ("Łódź — Über & Æther", "lodz-uber-aether"),
            ("It's a Wonderful Life (1946)", "its-a-wonderful-life-1946"),
            ("  --a//b..c--  ", "a-b-c"),
            ("功夫 2", "u529f-u592b-2"),
            ("e\u{301}te\u{301}", "ete"),
        ] {
            assert_eq!(slug(title), wanted, "{title}");
        }
    }

    #[test]
    fn a_slug_is_never_empty_nor_long_and_tells_long_titles_apart() {
        assert!(slug("🎬🎬").starts_with("title-"));
        assert!(slug("").starts_with("title-"));
        assert_ne!(slug("🎬"), slug("🎥"));
        let long = "очень ".repeat(60);
        let (a, b) = (slug(&format!("{long}один")), slug(&format!("{long}два")));
        assert!(a.len() <= SLUG_LIMIT && b.len() <= SLUG_LIMIT, "{a} {b}");
        assert_ne!(a, b);
        for s in [a, b, slug("../../etc/passwd"), slug("\0\n")] {
            assert!(s.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-'), "{s}");
        }
    }

    #[test]
    fn names_that_differ_only_in_case_or_form_collide() {
        for (a, b) in [
            ("Film.mov", "film.MOV"),
            ("ЁЛКА", "ёлка"),
            ("é", "e\u{301}"),
            ("straße", "STRASSE"),
            ("σας", "ΣΑΣ"),
        ] {
            assert!(refuse_collisions([a, b]).is_err(), "{a} {b}");
        }
        assert!(refuse_collisions(["a", "a/b"]).is_err());
        assert!(refuse_collisions(["a/b", "a"]).is_err());
        assert!(refuse_collisions(["A/b", "a/c"]).is_err());
        assert!(refuse_collisions(["a/b", "a/c", "d"]).is_ok());
    }

    #[test]
    fn safe_names_have_nothing_that_a_file_system_refuses() {
        assert_eq!(safe_name("a/b:c?", "mp4"), "a_b_c_.mp4");
        assert_eq!(safe_name("CON", "txt"), "_CON.txt");
        assert_eq!(safe_name("com1.backup", "txt"), "_com1.backup.txt");
        assert_eq!(safe_name("..", ""), "_");
        assert_eq!(safe_name("Имя «фильма» 🎬", "mov"), "Имя «фильма» 🎬.mov");
        assert_eq!(safe_name("x\u{202e}gpj", "exe"), "x_gpj.exe");
        let long = safe_name(&"ж".repeat(300), "mp4");
        assert!(long.len() <= NAME_LIMIT && long.ends_with(".mp4"));
    }
}
