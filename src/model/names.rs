//! Names of tensors: patterns that choose them, and what somebody may have meant who chose none.

/// Steps that are made to find near names, in all: less than a second.
const STEPS_MAX: usize = 100_000_000;
/// Near names that are said.
const NEAR_MAX: usize = 5;
/// Longer names and patterns are not compared.
const COMPARED_BYTES_MAX: usize = 1 << 10;

/// Whether a name is this pattern: `*` stands for any signs, `?` for one. A name that is the pattern as it stands is, too.
pub fn matches(pattern: &str, name: &str) -> bool {
    if pattern == name {
        return true;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where to go on after a star that took too little: one sign more.
    let (mut p, mut n, mut star) = (0, 0, None);
    while let Some(sign) = name.get(n) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == sign => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_none_or(|rest| rest.iter().all(|sign| *sign == '*'))
}

/// The names that are nearest to a pattern which none is: first those that have it within them, then those with the
/// fewest signs to change, add or take away (Levenshtein's distance, where a star costs nothing).
pub fn near<'n>(pattern: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let around = format!("*{pattern}*");
    let signs: Vec<char> = pattern.chars().collect();
    let (mut found, mut steps): (Vec<(usize, &str)>, usize) = (Vec::new(), 0);
    for name in names {
        if pattern.len().max(name.len()) > COMPARED_BYTES_MAX {
            continue;
        }
        steps = steps.saturating_add(pattern.len().saturating_add(1).saturating_mul(name.len().saturating_add(1)));
        if steps > STEPS_MAX {
            break;
        }
        let far = if matches(&around, name) { 0 } else { distance(&signs, name).max(1) };
        found.push((far, name));
        // Of those that are equally near the first in the file counts.
        if found.len() > NEAR_MAX {
            found.sort_by_key(|(far, _)| *far);
            found.truncate(NEAR_MAX);
        }
    }
    found.sort_by_key(|(far, _)| *far);
    found.into_iter().map(|(_, name)| name).collect()
}

fn distance(pattern: &[char], name: &str) -> usize {
    let name: Vec<char> = name.chars().collect();
    let mut before: Vec<usize> = (0..=name.len()).collect();
    for sign in pattern {
        let star = *sign == '*';
        let mut row = Vec::with_capacity(before.len());
        let mut left = before.first().map_or(0, |up| up + usize::from(!star));
        row.push(left);
        for (other, pair) in name.iter().zip(before.windows(2)) {
            let &[corner, up] = pair else { continue };
            left = match star {
                true => up.min(left),
                false => (corner + usize::from(*sign != '?' && sign != other)).min(up + 1).min(left + 1),
            };
            row.push(left);
        }
        before = row;
    }
    before.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_choose_names() {
        for (pattern, name, is) in [
            ("layers.3.*", "layers.3.mlp.weight", true),
            ("layers.3.*", "layers.30.mlp.weight", false),
            ("*.bias", "a.b.bias", true),
            ("*.bias", "a.bias.weight", false),
            ("layers.?.w", "layers.7.w", true),
            ("layers.?.w", "layers.17.w", false),
            ("*", "", true),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-", false),
            ("what?*", "what?*", true),
            ("/graph/é*", "/graph/éx", true),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
        // Without going through all ways to share the signs out.
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
    }

    #[test]
    fn near_names_are_found() {
        let names = ["model.layers.3.mlp.weight", "model.layers.4.mlp.weight", "lm_head.weight", "embed"];
        let near = |pattern: &str| near(pattern, names.iter().copied());
        assert_eq!(near("layers.3.*")[0], names[0]);
        assert_eq!(near("lm_haed.weight")[0], names[2]);
        assert_eq!(near("model.layer.4.*")[0], names[1]);
        assert_eq!(near("embedding")[0], names[3]);
        assert_eq!(distance(&"kitten".chars().collect::<Vec<_>>(), "sitting"), 3);
        assert_eq!(distance(&"k*n".chars().collect::<Vec<_>>(), "kitten"), 0);
    }
}
