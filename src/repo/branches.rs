//! Which branch of the epochs counts, where regions show several.
//!
//! Epochs are one series, decided at home. Only a person's word makes a second branch of it: a home that was given up for lost
//! may have begun an epoch that nobody else saw, and come back with it. Then a branch that is decided counts before one that
//! is not, the longest first; else the one that the members common to all of them show first, weak ones left out. Whoever
//! decides an epoch has copied its begin to all of these before, and read them again: what stands first at a key stays, so
//! two who decide at the same time see the same. The order of regions in a configuration is no reason.

use crate::base::{Digest, Epoch, PackName, RegionId};
use crate::format::objects::{EpochBegin, Member, Root};
use crate::region::RegionSet;
use crate::store::Key;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A beginning that verifies.
#[derive(Debug)]
pub struct Begun {
    /// What it says.
    pub begin: EpochBegin,
    /// Its digest.
    pub digest: Digest,
    /// Packs that it condemns.
    pub condemned: Vec<PackName>,
    /// Whether an owner signed it.
    pub by_owner: bool,
}

impl Begun {
    /// Whether it may follow `before`: members change on the owner's word only, and the first epoch sets them.
    pub fn may_follow(&self, before: Option<&Begun>) -> bool {
        self.by_owner || before.is_some_and(|before| before.begin.members == self.begin.members)
    }

    /// Whether it names a region as a member.
    pub fn counts(&self, id: RegionId) -> bool {
        has(&self.begin.members, id)
    }

    /// Whether something may be decided there.
    fn decides(&self, id: RegionId) -> bool {
        self.begin.members.iter().any(|member| member.id == id && !member.is_weak())
    }
}

fn has(members: &[Member], id: RegionId) -> bool {
    members.iter().any(|member| member.id == id)
}

/// An end that verifies.
#[derive(Debug)]
pub struct Done {
    /// Its digest.
    pub digest: Digest,
    /// Digest of the beginning that it decides.
    pub begin: Digest,
    /// Packs that are dead from then on.
    pub doomed: Vec<PackName>,
    /// Roots seen.
    pub roots: Vec<Root>,
}

/// What one region shows of one epoch, by suffix.
#[derive(Debug, Default)]
struct Shown {
    begins: Vec<(Key, Arc<Begun>)>,
    ends: Vec<(Key, Arc<Done>)>,
}

/// What all regions show.
#[derive(Debug, Default)]
pub struct Branches(BTreeMap<Epoch, BTreeMap<usize, Shown>>);

/// Where a region has a beginning, and each end of it.
pub type Place = (Key, Vec<(Digest, Key)>);

/// An epoch of a branch.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its number.
    pub number: Epoch,
    /// Its beginning.
    pub begun: Arc<Begun>,
    /// Regions that show it.
    pub at: RegionSet,
    /// Those that show it before any other.
    first: RegionSet,
}

/// The branch that counts.
#[derive(Debug, Default)]
pub struct Branch {
    /// Its epochs, from the first on.
    pub links: Vec<Link>,
    /// Regions that show another one, with its first epoch.
    pub forked: BTreeMap<usize, Epoch>,
    /// Beginnings after these that nobody was told of.
    pub untold: Vec<Arc<Begun>>,
}

/// Why one is preferred, in this order.
type Rank = (Epoch, usize, bool, usize, Digest);

impl Branches {
    /// Takes note of a beginning. What several regions show is held once.
    pub fn begun(&mut self, ix: usize, number: Epoch, key: Key, begun: Begun) {
        let known = self.of(number).flat_map(|(_, shown)| &shown.begins);
        let same = known.map(|(_, known)| known).find(|known| known.digest == begun.digest).cloned();
        let shown = self.0.entry(number).or_default().entry(ix).or_default();
        shown.begins.push((key, same.unwrap_or_else(|| Arc::new(begun))));
    }

    /// Takes note of an end.
    pub fn done(&mut self, ix: usize, number: Epoch, key: Key, done: Done) {
        let known = self.of(number).flat_map(|(_, shown)| &shown.ends);
        let same = known.map(|(_, known)| known).find(|known| known.digest == done.digest).cloned();
        let shown = self.0.entry(number).or_default().entry(ix).or_default();
        shown.ends.push((key, same.unwrap_or_else(|| Arc::new(done))));
    }

    fn of(&self, number: Epoch) -> impl Iterator<Item = (usize, &Shown)> {
        self.0.get(&number).into_iter().flatten().map(|(ix, shown)| (*ix, shown))
    }

    /// The ends of a beginning that these regions show, each once.
    pub fn ends(&self, number: Epoch, begin: &Digest, among: RegionSet) -> Vec<Arc<Done>> {
        let mut found: Vec<Arc<Done>> = Vec::new();
        let shown = self.of(number).filter(|(ix, _)| among.has(*ix));
        for (_, done) in shown.flat_map(|(_, shown)| &shown.ends) {
            if done.begin == *begin && !found.iter().any(|known| known.digest == done.digest) {
                found.push(Arc::clone(done));
            }
        }
        found
    }

    /// Where a region has a beginning, and each end of it.
    pub fn keys(&self, ix: usize, link: &Link) -> Option<Place> {
        let shown = self.0.get(&link.number)?.get(&ix)?;
        let (key, _) = shown.begins.iter().find(|(_, begun)| begun.digest == link.begun.digest)?;
        let ends = shown.ends.iter().filter(|(_, done)| done.begin == link.begun.digest);
        Some((*key, ends.map(|(key, done)| (done.digest, *key)).collect()))
    }

    /// What is nobody's: beginnings that must not follow, and ends of no beginning.
    pub fn strays(&self, branch: &Branch) -> Vec<(usize, Key, &'static str)> {
        let mut strays = Vec::new();
        for (number, regions) in &self.0 {
            let before = number.0.checked_sub(2).and_then(|at| branch.links.get(at as usize));
            let before = before.map(|link| &*link.begun);
            for (ix, shown) in regions {
                let late = number.0 > 1 && before.is_none();
                let odd = shown.begins.iter().filter(|(_, begun)| !late && !begun.may_follow(before));
                strays.extend(odd.map(|(key, _)| (*ix, *key, "members not signed by an owner")));
                let begins = |done: &Done| {
                    self.of(*number).flat_map(|(_, shown)| &shown.begins).any(|(_, begun)| begun.digest == done.begin)
                };
                let odd = shown.ends.iter().filter(|(_, done)| !begins(done));
                strays.extend(odd.map(|(key, _)| (*ix, *key, "end of another beginning")));
            }
        }
        strays
    }

    /// The branch that counts; `id` tells the regions.
    pub fn choose(&self, id: &dyn Fn(usize) -> Option<RegionId>) -> Branch {
        self.follow((Epoch(1), None, RegionSet::ALL), id, true)
    }

    /// The branch from an epoch on, among the regions that show what comes before it: the series has no gaps.
    fn follow(
        &self,
        (mut number, mut before, mut on): (Epoch, Option<Arc<Begun>>, RegionSet),
        id: &dyn Fn(usize) -> Option<RegionId>,
        ahead: bool,
    ) -> Branch {
        let mut branch = Branch::default();
        loop {
            let rivals = self.rivals(number, before.as_deref(), on);
            let (untold, rivals) = self.told(rivals, before.as_deref(), on, id);
            let best = match rivals.as_slice() {
                [] => {
                    branch.untold = untold.into_iter().map(|link| link.begun).collect();
                    return branch;
                }
                [one] => one,
                several => {
                    let rank = |link: &&Link| self.rank(link, several, before.as_deref(), id, ahead);
                    let Some(best) = several.iter().max_by_key(rank) else { return branch };
                    best
                }
            };
            let other = rivals.iter().fold(RegionSet::NONE, |all, link| all.or(link.at));
            branch.forked.extend(other.iter().filter(|ix| !best.at.has(*ix)).map(|ix| (ix, number)));
            (before, on) = (Some(Arc::clone(&best.begun)), best.at);
            branch.links.push(best.clone());
            let Some(next) = number.0.checked_add(1) else { return branch };
            number = Epoch(next);
        }
    }

    /// What these regions show as an epoch that may follow.
    fn rivals(&self, number: Epoch, before: Option<&Begun>, on: RegionSet) -> Vec<Link> {
        let mut rivals: Vec<Link> = Vec::new();
        for (ix, shown) in self.of(number).filter(|(ix, _)| on.has(*ix)) {
            let valid = shown.begins.iter().filter(|(_, begun)| begun.may_follow(before));
            for (turn, (_, begun)) in valid.enumerate() {
                let at = match rivals.iter().position(|rival| rival.begun.digest == begun.digest) {
                    Some(at) => at,
                    None => {
                        let none = RegionSet::NONE;
                        rivals.push(Link { number, begun: Arc::clone(begun), at: none, first: none });
                        rivals.len() - 1
                    }
                };
                let rival = &mut rivals[at];
                rival.at = rival.at.with(ix);
                if turn == 0 {
                    rival.first = rival.first.with(ix);
                }
            }
        }
        rivals
    }

    /// The beginnings that nobody was told of, and those that count: in this order. The first are shown only where nobody's word
    /// counts, and decided nowhere, while a member is there that shows all before them. Whoever began one took the place for
    /// home, which had been emptied and filled under another mark, and was cut off before it told anybody. Nothing was done
    /// by it, since that begins once every member shows it; and if it counted, nobody could carry it through, as it names a
    /// member that is not there, nor begin another one. Where home is there without it, and has no other, home has lost it.
    fn told(
        &self,
        rivals: Vec<Link>,
        before: Option<&Begun>,
        on: RegionSet,
        id: &dyn Fn(usize) -> Option<RegionId>,
    ) -> (Vec<Link>, Vec<Link>) {
        let Some(before) = before else { return (Vec::new(), rivals) };
        let any = |set: RegionSet, which: &dyn Fn(RegionId) -> bool| set.iter().filter_map(id).any(which);
        let is_shown = |link: &Link| any(link.at, &|id| before.counts(id) || link.begun.counts(id));
        let (told, untold): (Vec<Link>, Vec<Link>) =
            rivals.into_iter().partition(|link| is_shown(link) || self.is_decided(link));
        let home = before.begin.members.first().map(|home| home.id);
        let is_lost = told.is_empty() && any(RegionSet::ALL, &|id| Some(id) == home);
        if is_lost || !any(on, &|id| before.counts(id)) {
            return (Vec::new(), [told, untold].concat());
        }
        (untold, told)
    }

    /// Whether any region shows an end of it.
    fn is_decided(&self, link: &Link) -> bool {
        !self.ends(link.number, &link.begun.digest, RegionSet::ALL).is_empty()
    }

    fn rank(
        &self,
        link: &Link,
        rivals: &[Link],
        before: Option<&Begun>,
        id: &dyn Fn(usize) -> Option<RegionId>,
        ahead: bool,
    ) -> Rank {
        let mut decided = if self.is_decided(link) { link.number } else { Epoch(0) };
        if let Some(next) = link.number.0.checked_add(1).filter(|_| ahead && decided > Epoch(0)) {
            let start = (Epoch(next), Some(Arc::clone(&link.begun)), link.at);
            let later = self.follow(start, id, false).links;
            decided = later.iter().take_while(|link| self.is_decided(link)).last().map_or(decided, |link| link.number);
        }
        let was = |id: RegionId| before.is_none_or(|before| before.counts(id));
        // What comes first at a key of a weak region need not stay there.
        let common = |id: RegionId| was(id) && rivals.iter().all(|rival| rival.begun.decides(id));
        let count = |set: RegionSet, which: &dyn Fn(RegionId) -> bool| {
            set.iter().filter_map(id).filter(|id| which(*id)).count()
        };
        let home = before.and_then(|before| before.begin.members.first());
        // One that leaves out what was home was begun on a person's word that it will not come back.
        let without_home = home.is_some_and(|home| !link.begun.counts(home.id));
        (decided, count(link.first, &common), without_home, count(link.at, &was), link.begun.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ConfigNo;
    use crate::format::signed::Fresh;

    /// A region by its letter, an epoch's number, its beginnings there by suffix, and the beginnings that it shows ended.
    type There<'t> = (u8, u32, &'t str, &'t str);

    fn region(letter: u8) -> RegionId {
        RegionId([letter; 16])
    }

    fn begun(name: u8, number: u32, members: &str, by_owner: bool) -> Begun {
        // A capital letter is a weak region.
        let member = |letter: u8| Member {
            id: region(letter.to_ascii_lowercase()),
            name: String::new(),
            weak: letter.is_ascii_uppercase().then_some(true),
        };
        let begin = EpochBegin {
            fresh: Fresh { config: ConfigNo(1), digest: Digest::ZERO, epoch: Epoch(1) },
            number: Epoch(number),
            members: members.bytes().map(member).collect(),
            condemned: Vec::new().into(),
            roots: Vec::new(),
            created: 0,
        };
        Begun { begin, digest: Digest([name; 32]), condemned: Vec::new(), by_owner }
    }

    fn done(begin: u8) -> Done {
        Done { digest: Digest([begin ^ 0x80; 32]), begin: Digest([begin; 32]), doomed: Vec::new(), roots: Vec::new() }
    }

    /// The names of the epochs that count, and the regions that show others: the same in whatever order the regions are named.
    fn chosen(named: &str, epochs: &[(char, &str)], shown: &[There<'_>]) -> (String, String) {
        let members = |name: u8| epochs.iter().find(|(of, _)| *of == char::from(name)).unwrap().1;
        let mut found = Vec::new();
        for turn in 0..named.len() {
            for back in [false, true] {
                let mut order: Vec<u8> = named.bytes().collect();
                order.rotate_left(turn);
                if back {
                    order.reverse();
                }
                let mut branches = Branches::default();
                for (letter, number, begins, ends) in shown {
                    let ix = order.iter().position(|named| named == letter).unwrap();
                    for (suffix, name) in (0..).zip(begins.bytes()) {
                        let key = Key::EpochBegin(Epoch(*number), suffix);
                        branches.begun(ix, Epoch(*number), key, begun(name, *number, members(name), name != b'J'));
                    }
                    for (suffix, name) in (0..).zip(ends.bytes()) {
                        branches.done(ix, Epoch(*number), Key::EpochEnd(Epoch(*number), suffix), done(name));
                    }
                }
                let branch = branches.choose(&|ix| order.get(ix).map(|letter| region(*letter)));
                let names =
                    branch.links.iter().map(|link| char::from(link.begun.digest.bytes()[0])).collect::<String>();
                let mut forked: Vec<u8> = branch.forked.keys().map(|ix| order[*ix]).collect();
                forked.sort();
                found.push((names, String::from_utf8(forked).unwrap()));
            }
        }
        found.dedup();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    fn strings(names: &str, forked: &str) -> (String, String) {
        (names.to_owned(), forked.to_owned())
    }

    const FIRST: &str = "ab";

    /// Place x was b, and was emptied.
    #[test]
    fn what_stands_in_an_emptied_place_and_nowhere_else_counts_for_nothing() {
        let epochs = [('1', "abc"), ('L', "bc"), ('P', "abc"), ('R', "axc"), ('S', "cx")];
        let all = [b'a', b'b', b'c', b'x'].map(|place| (place, 1, "1", "1"));
        let shown = |places: &[u8], more: &[There<'static>]| -> Vec<There<'static>> {
            all.iter().filter(|(place, ..)| places.contains(place)).chain(more).copied().collect()
        };
        // Home is not there, and a member is, which shows what comes before.
        assert_eq!(chosen("cx", &epochs, &shown(b"cx", &[(b'x', 2, "P", "")])), strings("1", ""));
        // A member shows it; somebody decided it; it names that place; nobody is there who could know better.
        assert_eq!(chosen("cx", &epochs, &shown(b"cx", &[(b'x', 2, "P", ""), (b'c', 2, "P", "")])), strings("1P", ""));
        assert_eq!(chosen("cx", &epochs, &shown(b"cx", &[(b'x', 2, "P", "P")])), strings("1P", ""));
        assert_eq!(chosen("cx", &epochs, &shown(b"cx", &[(b'x', 2, "S", "")])), strings("1S", ""));
        assert_eq!(chosen("x", &epochs, &shown(b"x", &[(b'x', 2, "P", "")])), strings("1P", ""));
        // Home is there without it: it has lost it. Or has begun another one.
        assert_eq!(chosen("acx", &epochs, &shown(b"acx", &[(b'x', 2, "P", "")])), strings("1P", ""));
        let rivals = [(b'x', 2, "L", ""), (b'a', 2, "R", "")];
        assert_eq!(chosen("acx", &epochs, &shown(b"acx", &rivals)), strings("1R", ""));
    }

    #[test]
    fn what_is_decided_counts_before_what_is_not() {
        let epochs = [('1', "abc"), ('A', "ac"), ('B', "bc"), ('C', "bcd")];
        let all = [(b'a', 1, "1", "1"), (b'b', 1, "1", "1"), (b'c', 1, "1", "1")];
        let decided = [(b'a', 2, "A", ""), (b'b', 2, "B", "B"), (b'c', 2, "B", "B")];
        assert_eq!(chosen("abc", &epochs, &[all, decided].concat()), strings("1B", "a"));
        // The other way round, and however many follow.
        let other = [(b'a', 2, "A", "A"), (b'b', 2, "B", ""), (b'c', 2, "BA", "A")];
        assert_eq!(chosen("abc", &epochs, &[all, other].concat()), strings("1A", "b"));
        let later = [(b'b', 3, "C", ""), (b'c', 3, "C", "C")];
        assert_eq!(chosen("abc", &epochs, &[&all[..], &decided, &later].concat()), strings("1BC", "a"));
        // What comes behind one that is not decided decides nothing.
        let alone = [(b'a', 3, "C", "C")];
        assert_eq!(chosen("abc", &epochs, &[&all[..], &decided, &alone].concat()), strings("1B", "a"));
    }

    #[test]
    fn of_two_that_are_decided_the_longest_counts() {
        let epochs = [('1', FIRST), ('A', "a"), ('B', "b"), ('C', "bc")];
        let fork = [(b'a', 1, "1", "1"), (b'b', 1, "1", "1"), (b'a', 2, "A", "A"), (b'b', 2, "B", "B")];
        let longer = [(b'b', 3, "C", "C")];
        assert_eq!(chosen("ab", &epochs, &[&fork[..], &longer].concat()), strings("1BC", "a"));
        // Neither is: one that goes on without what was home.
        assert_eq!(chosen("ab", &epochs, &fork), strings("1B", "a"));
    }

    #[test]
    fn of_two_undecided_ones_the_first_at_the_key_of_common_members_counts() {
        let epochs = [('1', "abcd"), ('A', "acd"), ('B', "bcd")];
        let all = [(b'a', 1, "1", "1"), (b'b', 1, "1", "1"), (b'c', 1, "1", "1"), (b'd', 1, "1", "1")];
        let fork = |c: &'static str, d: &'static str| {
            [&all[..], &[(b'a', 2, "A", ""), (b'b', 2, "B", ""), (b'c', 2, c, ""), (b'd', 2, d, "")]].concat()
        };
        assert_eq!(chosen("abcd", &epochs, &fork("AB", "AB")), strings("1A", "b"));
        assert_eq!(chosen("abcd", &epochs, &fork("BA", "BA")), strings("1B", "a"));
        assert_eq!(chosen("abcd", &epochs, &fork("AB", "BA")), strings("1B", "a"));
        assert_eq!(chosen("abcd", &epochs, &fork("", "")), strings("1B", "a"));
        assert_eq!(chosen("abcd", &epochs, &fork("A", "")), strings("1A", "b"));
        // A weak one shows as first what came last.
        let weak = [('1', "abcD"), ('A', "acD"), ('B', "bcD")];
        for d in ["AB", "BA", "A", ""] {
            assert_eq!(chosen("abcd", &weak, &fork("AB", d)), strings("1A", "b"));
        }
    }

    #[test]
    fn what_no_owner_signed_is_no_branch() {
        let epochs = [('1', "ab"), ('J', "a"), ('B', "ab")];
        let all = [(b'a', 1, "1", "1"), (b'b', 1, "1", "1"), (b'a', 2, "JB", ""), (b'b', 2, "B", "BX")];
        assert_eq!(chosen("ab", &epochs, &all), strings("1B", ""));
        let mut branches = Branches::default();
        for (number, name, members) in [(1, b'1', "ab"), (2, b'J', "a")] {
            branches.begun(
                0,
                Epoch(number),
                Key::EpochBegin(Epoch(number), 0),
                begun(name, number, members, name != b'J'),
            );
        }
        branches.done(0, Epoch(1), Key::EpochEnd(Epoch(1), 0), done(b'X'));
        let branch = branches.choose(&|_| Some(region(b'a')));
        assert_eq!(branch.links.len(), 1);
        let strays: Vec<Key> = branches.strays(&branch).into_iter().map(|(_, key, _)| key).collect();
        assert_eq!(strays, [Key::EpochEnd(Epoch(1), 0), Key::EpochBegin(Epoch(2), 0)]);
    }
}
