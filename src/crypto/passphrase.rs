//! Passphrases: seven words drawn at random, and how hard a chosen one is to guess.

use super::Secret;
use std::collections::BTreeSet;
use zeroize::Zeroizing;

/// 2,048 plain English words, so eleven bits a word.
const WORDS: &str = include_str!("words.txt");
/// Seven different ones make 76.98 bits.
const WORDS_DRAWN: usize = 7;

/// The estimator's time grows with the cube of what it sees, so it sees this many characters at once, …
const PIECE_CHARS_MAX: usize = 24;
/// … and no more pieces than this.
const PIECES_MAX: usize = 32;
/// A piece below this is no word: such pieces are judged together (`a-b-c-d`).
const WORD_CHARS_MIN: usize = 3;
/// For each kind of character that is no letter or digit: what the estimator itself gives for a character.
const SEPARATOR_BITS: f64 = std::f64::consts::LOG2_10;
/// Kinds of such characters that count.
const SEPARATORS_MAX: usize = 4;

/// Seven different words, each as likely as any other, joined by dashes.
pub fn generate_passphrase(entropy: &Secret<32>) -> Zeroizing<String> {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut stream =
        blake3::Hasher::new_derive_key("holdfast.io passphrase words").update(entropy.bytes()).finalize_xof();
    // Draws from here on would favour the first words of a list whose length does not divide 65,536.
    let unfair = (1 << 16) / words.len() * words.len();
    let mut drawn: Vec<&str> = Vec::with_capacity(WORDS_DRAWN);
    while drawn.len() < WORDS_DRAWN {
        let mut draw = Zeroizing::new([0; 2]);
        stream.fill(&mut *draw);
        let draw = usize::from(u16::from_le_bytes(*draw));
        if draw < unfair && !drawn.contains(&words[draw % words.len()]) {
            drawn.push(words[draw % words.len()]);
        }
    }
    Zeroizing::new(drawn.join("-"))
}

/// About how many bits somebody has to guess who knows how passphrases are chosen. Low rather than high: a
/// word that occurs twice counts once, and nothing is given for the order of words.
///
/// The estimator leaves copies in memory; this is for the moment in which a secret is set, not for opening.
pub fn passphrase_bits(text: &str) -> u32 {
    let separators: BTreeSet<char> = text.chars().filter(|c| !c.is_alphanumeric()).collect();
    let mut bits = separators.len().min(SEPARATORS_MAX) as f64 * SEPARATOR_BITS;
    let mut seen: BTreeSet<[u8; 32]> = BTreeSet::new();
    for piece in pieces(text).into_iter().take(PIECES_MAX) {
        if seen.insert(blake3::hash(Zeroizing::new(piece.to_lowercase()).as_bytes()).into()) {
            bits += piece_bits(&piece);
        }
    }
    bits as u32
}

fn piece_bits(piece: &str) -> f64 {
    zxcvbn::zxcvbn(piece, &[]).guesses_log10().max(0.0) * std::f64::consts::LOG2_10
}

/// Runs of letters and digits, short ones that follow each other joined, long ones cut.
fn pieces(text: &str) -> Vec<Zeroizing<String>> {
    let mut pieces: Vec<Zeroizing<String>> = Vec::new();
    let mut joining = false;
    for run in text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty()) {
        let short = run.chars().count() < WORD_CHARS_MIN;
        if !(short && joining) {
            pieces.push(Zeroizing::new(String::new()));
        }
        joining = short;
        for c in run.chars() {
            if pieces.last().is_some_and(|piece| piece.chars().count() >= PIECE_CHARS_MAX) {
                pieces.push(Zeroizing::new(String::new()));
            }
            if let Some(piece) = pieces.last_mut() {
                piece.push(c);
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `init` and `key add` ask for.
    const ENOUGH: u32 = 60;

    fn words() -> Vec<&'static str> {
        WORDS.split_whitespace().collect()
    }

    #[test]
    fn the_list_is_sorted_without_repeats_and_plain() {
        let words = words();
        assert_eq!(words.len(), 2048);
        assert!(words.is_sorted_by(|a, b| a < b));
        for word in &words {
            assert!((3..=8).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
        }
        let bits: f64 = (0..WORDS_DRAWN).map(|n| ((words.len() - n) as f64).log2()).sum();
        assert!(bits >= 75.0, "{bits}");
    }

    #[test]
    fn what_is_drawn_passes_whatever_is_drawn() {
        // A passphrase of these words has at least the bits of the weakest seven.
        let mut bits: Vec<f64> = words().iter().map(|word| piece_bits(word)).collect();
        bits.sort_by(f64::total_cmp);
        let least = bits.iter().take(WORDS_DRAWN).sum::<f64>() + SEPARATOR_BITS;
        assert!(least as u32 >= ENOUGH, "{least}, {:?}", &bits[..WORDS_DRAWN]);
        for n in 0..=255 {
            let text = generate_passphrase(&Secret::from_bytes([n; 32]));
            assert!(passphrase_bits(&text) >= ENOUGH, "{} bits: {}", passphrase_bits(&text), *text);
        }
    }

    #[test]
    fn seven_different_words_of_the_list_and_every_word_occurs() {
        let list = words();
        let mut counts = std::collections::BTreeMap::new();
        for n in 0..6000u32 {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&n.to_le_bytes());
            let text = generate_passphrase(&Secret::from_bytes(seed));
            let drawn: BTreeSet<&str> = text.split('-').collect();
            assert_eq!(drawn.len(), WORDS_DRAWN, "{}", *text);
            for word in drawn {
                *counts.entry(list.binary_search(&word).unwrap()).or_insert(0u32) += 1;
            }
        }
        // 20.5 of each are expected, with a deviation of 4.5.
        assert_eq!(counts.len(), list.len());
        assert!(counts.values().all(|n| *n < 50), "{:?}", counts.values().max());
        let (first, second) =
            counts.iter().fold((0, 0), |(a, b), (at, n)| if at % 2 == 0 { (a + n, b) } else { (a, b + n) });
        assert!(first.abs_diff(second) < 1200, "{first} {second}");
    }

    #[test]
    fn the_same_entropy_gives_the_same_words() {
        let of = |n| generate_passphrase(&Secret::from_bytes([n; 32]));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn what_is_easy_to_guess() {
        let alphabet: String = ('a'..='z').flat_map(|c| [c, ' ']).collect();
        for weak in [
            "password",
            "P@ssw0rd1!",
            "correct horse battery staple",
            "correcthorsebatterystaple",
            "Correct-Horse-Battery-Staple!",
            "aaaaaaaaaaaaaaaaaaaa",
            "12345678901234567890",
            "qwertyuiopasdfghjklzxcvbnm",
            "1qaz2wsx3edc4rfv5tgb6yhn",
            "qwertyuiop[]asdfghjkl;'zxcvbnm,./",
            "asdf jkl; asdf jkl; asdf jkl;",
            "1-2-3-4-5-6-7-8-9-10-11-12-13-14",
            "2026-11-24 2026-11-25",
            "hello hello hello hello hello hello hello hello",
            &alphabet,
            &"a".repeat(4096),
            &"password ".repeat(400),
            "",
            " ",
        ] {
            assert!(passphrase_bits(weak) < ENOUGH, "{} bits: {weak}", passphrase_bits(weak));
        }
    }

    #[test]
    fn what_is_not() {
        for strong in [
            "correct-tests-need-no-strong-passphrase-9431",
            "Gx7vQ2mWz9Lk4Tb8Rn3Jp",
            "6f1d8a3be07c5924d1fa6e83",
            "kX9#mQ2$vL7!pR4&tB8?zN",
            "Siebenundzwanzig Murmeltiere grillen Zwetschgenkuchen",
        ] {
            assert!(passphrase_bits(strong) >= ENOUGH, "{} bits: {strong}", passphrase_bits(strong));
        }
    }

    #[test]
    fn a_long_one_takes_no_longer() {
        let mixed: String =
            (0..4096u32).map(|i| char::from(33 + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 94)).collect();
        let one_word: String =
            (0..4096u32).map(|i| char::from(97 + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
        for long in
            [mixed.as_str(), &one_word, &"1".repeat(4096), &"a1".repeat(2048), &"é".repeat(2048), &"qwerty".repeat(600)]
        {
            let begin = std::time::Instant::now();
            passphrase_bits(long);
            assert!(begin.elapsed().as_secs() < 2, "{:?}", begin.elapsed());
            assert!(pieces(long).iter().all(|p| p.chars().count() <= PIECE_CHARS_MAX));
        }
        assert!(passphrase_bits(&mixed) >= ENOUGH && passphrase_bits(&one_word) >= ENOUGH);
    }
}
