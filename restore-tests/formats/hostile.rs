//! Headers that lie: each is refused with what is wrong, soon, and within the memory that is allowed.

use super::containers::*;
use super::{arrays, model, wrong};
use holdfast::model::format::{Found, MEMORY_BYTES_MAX, ReadAt, TENSORS_MAX, read};
use std::io;

fn gguf(pairs: u64, tensors: u64, behind: &[&[u8]]) -> Vec<u8> {
    [&Gguf::default().front(tensors, pairs)[..], &behind.concat(), &[0; 4096]].concat()
}

#[test]
fn lies_of_gguf_are_seen() {
    let g = Gguf::default();
    let array = Array::new("a", "F32", &[8, 4], 1);
    let far = Array { bytes: Vec::new(), shape: vec![u64::MAX, 2], ..array.clone() };
    let deep: Vec<u8> = (0..6).flat_map(|_| [&g.u32(9)[..], &g.count(1)].concat()).collect();
    let pair = |key: &str, kind: u32, value: &[u8]| [&g.text(key)[..], &g.u32(kind), value].concat();
    let flag = pair("a", 7, &[1]);
    let lies: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a version", [&b"GGUF"[..], &[4, 0, 0, 0], &[0; 16]].concat(), "a version that is not known"),
        ("a million tensors", gguf(0, 1_000_000, &[]), "too many tensors or values"),
        ("2^64 - 1 tensors", gguf(0, u64::MAX, &[]), "too many tensors or values"),
        ("2^64 - 1 pairs", gguf(u64::MAX, 0, &[]), "too many tensors or values"),
        ("a key of 4 GiB", gguf(1, 0, &[&g.count(4 << 30)]), "a text that is too long"),
        ("a key of 2^64 - 1", gguf(1, 0, &[&g.count(u64::MAX)]), "a text that is too long"),
        ("a text of 4 GiB", gguf(1, 0, &[&pair("a", 8, &g.count(4 << 30))]), "a length behind the end"),
        ("a text of 2^64 - 1", gguf(1, 0, &[&pair("a", 8, &g.count(u64::MAX))]), "a length behind the end"),
        (
            "a list of 2^63",
            gguf(1, 0, &[&pair("a", 9, &[&g.u32(10)[..], &g.count(1 << 63)].concat())]),
            "a list that is too long",
        ),
        (
            "a list of 2^60",
            gguf(1, 0, &[&pair("a", 9, &[&g.u32(0)[..], &g.count(1 << 60)].concat())]),
            "a length behind the end",
        ),
        (
            "a list of 2^63 texts",
            gguf(1, 0, &[&pair("a", 9, &[&g.u32(8)[..], &g.count(1 << 63)].concat())]),
            "lists that are too long",
        ),
        ("lists in lists", gguf(1, 0, &[&pair("a", 9, &deep)]), "lists that lie too deep"),
        ("a type of value", gguf(1, 0, &[&pair("a", 99, &[])]), "a type of value that is not known"),
        ("a key twice", gguf(2, 0, &[&flag, &flag]), "two values of one key"),
        ("an alignment of 0", gguf(1, 0, &[&pair("general.alignment", 4, &g.u32(0))]), "an alignment that is none"),
        ("an alignment of 33", gguf(1, 0, &[&pair("general.alignment", 4, &g.u32(33))]), "an alignment that is none"),
        (
            "an alignment as text",
            gguf(1, 0, &[&pair("general.alignment", 8, &g.text("32"))]),
            "an alignment that is no number",
        ),
        ("an offset", gguf(0, 1, &[&g.info(&array, 31)]), "an offset that is not aligned"),
        ("an offset behind the end", gguf(0, 1, &[&g.info(&array, 1 << 40)]), "an offset behind the end"),
        ("an offset of nearly 2^64", gguf(0, 1, &[&g.info(&array, u64::MAX - 31)]), "an offset behind the end"),
        ("a tensor behind the end", gguf(0, 1, &[&g.info(&array, 4032)]), "a tensor behind the end"),
        ("a shape", gguf(0, 1, &[&g.info(&far, 0)]), "a shape that does not fit"),
        (
            "an overlap",
            gguf(0, 2, &[&g.info(&array, 0), &g.info(&Array { name: "b".into(), ..array.clone() }, 96)]),
            "two tensors that overlap",
        ),
        ("a name twice", gguf(0, 2, &[&g.info(&array, 0), &g.info(&array, 128)]), "two tensors of one name"),
        ("dimensions", gguf(0, 1, &[&g.text("a"), &g.u32(u32::MAX)]), "too many dimensions"),
        ("a name that is no text", gguf(0, 1, &[&g.count(1), &[0xff]]), "a text that is none"),
    ];
    for (what, file, says) in lies {
        assert_eq!(wrong(&file).what, says, "{what}");
    }
    // A type of numbers that is not known takes what there is up to the next tensor.
    let unknown = [&g.text("x")[..], &g.u32(1), &g.u64(5), &g.u32(777), &g.u64(0)].concat();
    let file = gguf(0, 2, &[&unknown, &g.info(&array, 64)]);
    let sizes: Vec<Option<u64>> = model(&file).tensors.iter().map(|tensor| tensor.bytes()).collect();
    assert_eq!(sizes, [Some(64), Some(128)]);
}

/// The same bytes with others at a place that is counted from where `mark` begins for the `nth` time.
fn changed(file: &[u8], mark: &[u8], nth: usize, at: usize, to: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = (0..file.len()).filter(|at| file[*at..].starts_with(mark)).collect();
    let from = places[nth] + at;
    let mut file = file.to_vec();
    file[from..from + to.len()].copy_from_slice(to);
    file
}

#[test]
fn lies_of_zip_files_are_seen() {
    const LISTED: &[u8] = b"PK\x01\x02";
    const END: &[u8] = b"PK\x05\x06";
    let file = torch(&arrays());
    let long = torch_with(&state(&arrays()), &arrays(), Zip { long: true, ..Zip::default() });
    let big = ((1u32 << 30) - 2).to_le_bytes();
    let lies: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no end", file[..file.len() - 1].to_vec(), "no list of entries at the end"),
        ("more behind the end", [&file[..], b"x"].concat(), "no list of entries at the end"),
        ("an entry more", changed(&file, END, 0, 8, &[11, 0, 11, 0]), "a length behind the end"),
        ("an entry less", changed(&file, END, 0, 8, &[8, 0, 8, 0]), "a list of entries of another length"),
        ("parts", changed(&file, END, 0, 4, &[1]), "a zip file in several parts"),
        (
            "a list behind the end",
            changed(&file, END, 0, 16, &[0xfe, 0xff, 0xff, 0xff]),
            "a list of entries behind the end",
        ),
        ("a list of 4 GiB", changed(&file, END, 0, 12, &[0xfe, 0xff, 0xff, 0xff]), "a list of entries behind the end"),
        ("two lengths", changed(&file, LISTED, 2, 24, &big), "an entry that has two lengths"),
        ("a length", changed(&changed(&file, LISTED, 2, 24, &big), LISTED, 2, 20, &big), "a length behind the end"),
        ("another place", changed(&file, LISTED, 2, 42, &[1, 0, 0, 0]), "an entry that is not where the list says"),
        ("another name", changed(&file, LISTED, 2, 46, b"Archive"), "an entry of another name than in the list"),
        (
            "the place of another entry",
            changed(&file, LISTED, 2, 42, &[0; 4]),
            "an entry of another name than in the list",
        ),
        ("packed", changed(&file, b"PK\x03\x04", 2, 8, &[8]), "an entry that is packed, and not so in the list"),
        ("encrypted", changed(&file, b"PK\x03\x04", 2, 6, &[1]), "an entry that is packed, and not so in the list"),
        (
            "a place of the long form",
            changed(&long, b"PK\x06\x07", 0, 8, &[0xff; 8]),
            "no list of entries where it should be",
        ),
        (
            "a million entries",
            changed(&long, b"PK\x06\x06", 0, 24, &[0x40, 0x42, 0x0f, 0, 0, 0, 0, 0, 0x40, 0x42, 0x0f]),
            "too many entries",
        ),
        ("a list of 2^64 - 1", changed(&long, b"PK\x06\x06", 0, 40, &[0xff; 8]), "a list of entries behind the end"),
        ("no long lengths", changed(&long, LISTED, 0, 46 + "archive/data.pkl".len(), &[9]), "a length that is missing"),
    ];
    for (what, file, says) in lies {
        assert_eq!(wrong(&file).what, says, "{what}");
    }
    // One entry twice in the list, and one inside another.
    let zip = |inner: &[u8]| {
        Zip::default().file(&[("a/data.pkl", b"\x80\x02}."), ("a/data/0", inner), ("a/data/1", &[7; 64])])
    };
    let twice = Zip::default().file(&[("a/data.pkl", b"\x80\x02}."), ("a/data/0", &[7; 64]), ("a/data/0", &[7; 64])]);
    assert_eq!(wrong(&twice).what, "two entries of one name");
    let plain = zip(&[7; 200]);
    let second = (0..plain.len()).filter(|at| plain[*at..].starts_with(b"PK\x03\x04")).nth(2).unwrap();
    let inner = [&plain[second..second + 30 + 8 + 4 + 64], &[7; 94][..]].concat();
    let at = plain.windows(200).position(|part| part == [7; 200]).unwrap() as u32;
    let inside = changed(&zip(&inner), LISTED, 2, 42, &at.to_le_bytes());
    assert_eq!(wrong(&inside).what, "two entries that overlap");
}

#[test]
fn lies_of_onnx_are_seen() {
    let tensor = |parts: &[Vec<u8>]| onnx_model(&field(5, &parts.concat()));
    let pair = |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let mut deep = field(5, &onnx_tensor(&Array::new("w", "F32", &[9], 1)));
    for _ in 0..20 {
        deep = field(1, &field(5, &field(6, &deep)));
    }
    let good = onnx(&arrays());
    let one = Array::new("a", "F32", &[4], 1);
    let lies: Vec<(&str, Vec<u8>, &str)> = vec![
        ("graphs in graphs", onnx_model(&deep), "graphs that lie too deep"),
        ("two graphs", [good.clone(), field(7, b"")].concat(), "two graphs"),
        ("more behind the end", [&good[..], &[0x42]].concat(), "a length behind the end"),
        ("a group", [&good[..], &[0x4b]].concat(), "a field of a kind that is not known"),
        ("field 0", [&good[..], &[0, 0]].concat(), "a field that has no number"),
        ("a number of eleven bytes", [&good[..], &[8], &[0xff; 11]].concat(), "a number that is too long"),
        ("a length of 2^63", [&good[..], &varint(9 << 3 | 2), &varint(1 << 63)].concat(), "a length behind the end"),
        ("a shape", tensor(&[numeral(1, u64::MAX), numeral(1, 2), numeral(2, 1)]), "a shape that does not fit"),
        (
            "a length that is not its shape's",
            tensor(&[numeral(1, 5), numeral(2, 1), field(9, &[0; 16])]),
            "a shape that does not fit",
        ),
        ("dimensions", tensor(&[field(1, &[1; 65])]), "too many dimensions"),
        (
            "data twice",
            tensor(&[numeral(1, 4), field(9, &[0; 16]), field(4, &[0; 16])]),
            "a tensor that has its data twice",
        ),
        ("a name twice", onnx(&[one.clone(), one]), "two tensors of one name"),
        ("an offset", tensor(&[pair("offset", "-1"), numeral(14, 1)]), "an offset that is no number"),
        ("a name of 65 KiB", tensor(&[field(8, &[b'a'; 65 << 10])]), "a text that is too long"),
    ];
    for (what, file, says) in lies {
        assert_eq!(wrong(&file).what, says, "{what}");
    }
}

#[test]
fn lies_of_numpy_are_seen() {
    let header = |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}");
    let bad = "a header that is not as it should be";
    let headers: Vec<(&str, String, &str)> = vec![
        ("a shape", header("'<f4'", "(17,)"), "a shape that does not fit"),
        ("a shape that overflows", header("'<f4'", "(4294967296, 4294967296)"), "a shape that does not fit"),
        ("bytes that overflow", header("'<f8'", "(4611686018427387904,)"), "a shape that does not fit"),
        ("a number below zero", header("'<f4'", "(-1,)"), bad),
        ("a number of 30 digits", header("'<f4'", &format!("({},)", "9".repeat(30))), bad),
        ("65 dimensions", header("'<f4'", &format!("({})", "1,".repeat(65))), bad),
        ("a call", header("'<f4'", "(__import__('os'),)"), bad),
        ("deep lists", header(&"[".repeat(5000), "()"), bad),
        ("deep lists that end", header(&("[".repeat(40) + &"]".repeat(40)), "()"), bad),
        ("lists that end otherwise", header("[('a', '<f4'])", "()"), bad),
        ("a type of 65 letters", header(&format!("{:?}", "x".repeat(65)), "()"), bad),
        ("a key twice", format!("{{'shape': (), {}", &header("'<f4'", "()")[1..]), bad),
        ("a key more", format!("{{'x': (), {}", &header("'<f4'", "()")[1..]), bad),
        ("no shape", "{'descr': '<f4', 'fortran_order': False}".into(), bad),
        ("no end", header("'<f4'", "()").replace('}', ""), bad),
        ("more behind the end", header("'<f4'", "()") + "x", bad),
        ("no colon", header("'<f4'", "()").replace(':', " "), bad),
        ("nothing", String::new(), bad),
    ];
    for (what, header, says) in headers {
        assert_eq!(wrong(&npy_with(2, &header, &[0; 64])).what, says, "{what}");
    }
    let good = npy(&arrays()[0]);
    assert_eq!(wrong(&changed(&good, b"\x93NUMPY", 0, 6, &[4])).what, "a version that is not known");
    assert_eq!(wrong(&changed(&good, b"\x93NUMPY", 0, 8, &[0xff, 0xff])).what, "a header that is too long");
    let long = npy_with(2, &header("'<f4'", "()"), &[0; 4]);
    assert_eq!(wrong(&changed(&long, b"\x93NUMPY", 0, 8, &[0xff; 4])).what, "a header that is too long");
    let inside = Zip::default().file(&[("a.npy", &good), ("b.npy", b"no array at all")]);
    assert_eq!(wrong(&inside).what, "an array that is none");
}

/// A file that is made as it is read: front, the same bytes again and again, and an end.
struct Endless {
    front: Vec<u8>,
    again: Vec<u8>,
    end: Vec<u8>,
    bytes: u64,
}

impl ReadAt for Endless {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (front, end) = (self.front.len() as u64, self.bytes - self.end.len() as u64);
        let len = buf.len().min(self.bytes.saturating_sub(offset) as usize);
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let (from, most) = if at < front {
                (&self.front[at as usize..], front - at)
            } else if at >= end {
                (&self.end[(at - end) as usize..], self.bytes - at)
            } else {
                (&self.again[((at - front) % self.again.len() as u64) as usize..], end - at)
            };
            let part = from.len().min(most as usize).min(len - done);
            buf[done..done + part].copy_from_slice(&from[..part]);
            done += part;
        }
        Ok(len)
    }
}

/// The most memory this process ever had; every test runs in a process of its own.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn end_of_list(count: u64, begin: u64, bytes: u64) -> Vec<u8> {
    let record = begin + bytes;
    let mut end = [&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[0; 12]].concat();
    [count, count, bytes, begin].iter().for_each(|n| end.extend(n.to_le_bytes()));
    end.extend([&b"PK\x06\x07"[..], &[0; 4], &record.to_le_bytes(), &[1, 0, 0, 0]].concat());
    end.extend([&b"PK\x05\x06"[..], &[0; 4], &[0xff; 12], &[0; 2]].concat());
    end
}

/// Headers as long and as full as the formats allow, and longer.
fn bombs() -> Vec<(&'static str, Endless)> {
    let g = Gguf::default();
    let bomb = |front: Vec<u8>, again: &[u8], end: Vec<u8>, bytes: u64| Endless {
        front,
        again: again.repeat(1 + (16 << 10) / again.len()),
        end,
        bytes,
    };
    let json = |open: &str, again: &str, len: u64| {
        bomb([&len.to_le_bytes()[..], open.as_bytes()].concat(), again.as_bytes(), Vec::new(), len + 8)
    };
    let info = |name: &str| g.info(&Array::new(name, "I8", &[1; 8], 1), 0);
    let first = Zip::default().file(&[("a/data.pkl", b"\x80\x02}.")])[..46].to_vec();
    let entry = [&b"PK\x01\x02"[..], &[0; 24], &[6, 0], &[0; 16], b"a/data"].concat();
    let list = |count: u64| {
        let bytes = count * entry.len() as u64;
        let begin = first.len() as u64;
        bomb(first.clone(), &entry, end_of_list(count, begin, bytes), begin + bytes + 98)
    };
    let word = [&g.u64(1)[..], b"a"].concat();
    let words = [&g.front(0, 1)[..], &g.text("w"), &g.u32(9), &g.u32(8), &g.count(1 << 24)].concat();
    let initializer = field(5, &onnx_tensor(&Array::new("a", "I8", &[1; 40], 1)));
    let graph = (1u64 << 30) / initializer.len() as u64 * initializer.len() as u64;
    let onnx = [numeral(1, 10), field(2, b"t"), varint(7 << 3 | 2), varint(graph)].concat();
    let onnx_bytes = onnx.len() as u64 + graph;
    vec![
        ("deep lists", json("{\"a\":", "[", 8 << 20)),
        ("deep objects", json("{", "\"a\":{", 8 << 20)),
        ("a name of 8 MiB", json("{\"", "a", 8 << 20)),
        ("a name of escapes", json("{\"", "\\u0041", 8 << 20)),
        ("a shape without end", json("{\"a\":{\"shape\":[", "1,", 8 << 20)),
        ("metadata without end", json("{\"__metadata__\":{", "\"a\":\"b\",", 8 << 20)),
        ("entries without end", json("{", r#""a":{"dtype":"U8","shape":[1,1,1,1],"data_offsets":[0,1]},"#, 8 << 20)),
        ("a header of 4 GiB", json("{", " ", 4 << 30)),
        ("a million tensors of GGUF", bomb(g.front(1_000_000, 0), &info("a"), Vec::new(), 1 << 30)),
        ("as many as are allowed", bomb(g.front(TENSORS_MAX as u64, 0), &info("a"), Vec::new(), 1 << 30)),
        ("with long names", bomb(g.front(TENSORS_MAX as u64, 0), &info(&"a".repeat(60_000)), Vec::new(), 1 << 40)),
        (
            "many keys",
            bomb(g.front(0, 1 << 16), &[&g.text(&"k".repeat(1000))[..], &g.u32(7), &[1]].concat(), Vec::new(), 1 << 30),
        ),
        ("many words", bomb(words, &word, Vec::new(), 1 << 40)),
        ("a million initializers", bomb(onnx, &initializer, Vec::new(), onnx_bytes)),
        ("tiny fields without end", bomb(onnx_model(&[]), &numeral(9, 1), Vec::new(), 100 << 30)),
        ("a million entries", list(1_000_000)),
        ("as many entries as are allowed", list(TENSORS_MAX as u64)),
    ]
}

#[test]
fn no_header_takes_more_memory_than_it_may() {
    let before = peak_kib();
    for (what, bomb) in bombs() {
        let found = read(&bomb, bomb.bytes).unwrap();
        // A list without a model's name in it is nobody's.
        let nobodys = what == "as many entries as are allowed";
        assert_eq!(matches!(found, Found::Other), nobodys, "{what}");
        let took = peak_kib() - before;
        assert!(took < (MEMORY_BYTES_MAX >> 10) as u64, "{what}: {took} KiB");
    }
}

/// Pickles that would grow without end if they were followed.
#[test]
fn no_pickle_takes_more_memory_than_it_may() {
    let array = arrays().swap_remove(0);
    let before = peak_kib();
    for again in [
        &b"("[..],
        b"}",
        b"K\x01",
        b"}q\x01h\x01",
        b"}\x94",
        b")\x85",
        b"}K\x01K\x02s",
        b"]h\x00a",
        b"(((tt",
        b"2",
        b"X\xff\xff\xff\xff",
    ] {
        let pickle = [&b"\x80\x02}q\x00"[..], &again.repeat((8 << 20) / again.len() - 8)[..], b"."].concat();
        let file = torch_with(&pickle, std::slice::from_ref(&array), Zip::default());
        let base = peak_kib();
        assert_eq!(model(&file).tensors[0].dtype, "storage");
        // What was built for the test is in it too.
        let took = peak_kib() - base.max(before);
        assert!(took < (MEMORY_BYTES_MAX >> 10) as u64, "{again:?}: {took} KiB");
    }
    // Dictionaries that lead to themselves, and to each other by more ways than can be gone.
    let own = torch_with(b"\x80\x02}q\x00K\x01h\x00s.", std::slice::from_ref(&array), Zip::default());
    assert_eq!(model(&own).tensors[0].dtype, "storage");
    let mut ways = b"\x80\x02}q\x00".to_vec();
    for level in 0..7u8 {
        ways.extend_from_slice(&[b'}', b'q', level + 1, b'(']);
        (0..100u8).for_each(|key| ways.extend_from_slice(&[b'K', key, b'h', level]));
        ways.push(b'u');
    }
    ways.push(b'.');
    assert_eq!(model(&torch_with(&ways, &[array], Zip::default())).tensors[0].dtype, "storage");
}

/// A file that becomes shorter, and one that cannot be read.
#[test]
fn files_that_change_or_fail_are_noted() {
    struct Fails(Vec<u8>, u64);
    impl ReadAt for Fails {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            if offset + buf.len() as u64 > self.1 { Err(io::Error::other("torn")) } else { self.0.read_at(offset, buf) }
        }
    }
    for (format, file) in super::files() {
        for part in [130, 200, file.len() / 2] {
            let found = read(&file[..part].to_vec(), file.len() as u64).unwrap();
            assert!(!matches!(found, Found::Other), "{format}: {found:?}");
        }
        let len = file.len() as u64;
        assert!(read(&Fails(file.clone(), 0), len).is_err() && read(&Fails(file, 128), len).is_err(), "{format}");
    }
}
