//! Bytes that are one thing to one reader and another to the next. Nothing here is ever loaded by anything that executes it.

use super::pickles::{Face, by_lines, gzip, stored};
use super::zips;
use holdfast::model::verdict::Grade;

/// All of them.
pub fn all() -> Vec<Face> {
    [
        archives(),
        numbers(),
        tars(),
        arrays(),
        memos(),
        names(),
        legacy(),
        dtypes(),
        types_by_other_ways(),
        beginnings(),
        attributes(),
        zips::faces(),
    ]
    .concat()
}

fn evil() -> Vec<u8> {
    by_lines("os", "system")
}

/// What begins like an archive and is a pickle, and what only some readers unpack.
fn archives() -> Vec<Face> {
    let evil = evil();
    let zlib = [&[0x28, 0x91, 0x30, 0x43, 0x10, 0xbc, 0xef][..], &[b'x'; 14], b"0", &evil].concat();
    let empty = [0, 0, 0, 0xff, 0xff].repeat(110);
    let slow = [&[0x78, 0x9c][..], &empty, &stored(&evil), &[0; 4]].concat();
    let packed = [&[0x78, 0x9c][..], &stored(&evil), &[0; 4]].concat();
    let size = format!("{:<19}", format!("{:#x}", evil.len()));
    let tar = tar_and_pickle();
    let darknet = [0i32, 2, 0, 32_013_312, 0, 1, 2, 3].iter().flat_map(|n| n.to_le_bytes()).collect();
    vec![
        ("a tar and a pickle, in gzip", gzip(&tar), Grade::Unsafe),
        ("a tar and a pickle, where PyTorch has its own", zips::one("archive/data.pkl", &tar), Grade::Unsafe),
        ("a tar and a pickle", tar, Grade::Unsafe),
        ("zlib and a pickle, in gzip", gzip(&zlib), Grade::Unsafe),
        ("zlib and a pickle, where PyTorch has its own", zips::one("archive/data.pkl", &zlib), Grade::Unsafe),
        ("zlib and a pickle", zlib, Grade::Unsafe),
        ("zlib that begins with nothing", slow, Grade::Unsafe),
        ("zlib behind empty zlib", [&b"\x78\x9c\x03\0\0\0\0\x01"[..], &packed].concat(), Grade::Unknown),
        ("lzma with a window of 12 MiB", [&b"\x5d\0\0\xc0\0"[..], &[0xff; 8], &[0; 20]].concat(), Grade::Unknown),
        (
            "lzma of other properties",
            [&b"\x5e\0\0\x80\0"[..], &[0xff; 8], b"\0\x20\0\x80", &[0; 20]].concat(),
            Grade::Unknown,
        ),
        ("numbers that are no lzma", darknet, Grade::None),
        ("zstd behind what it passes over", b"\x50\x2a\x4d\x18\x01\0\0\0x\x28\xb5\x2f\xfd".to_vec(), Grade::Unknown),
        ("lz4 of old", b"\x02\x21\x4c\x18\x08\0\0\0\x80hellowor".to_vec(), Grade::Unknown),
        ("joblib's old file", [b"ZF", size.as_bytes(), &packed].concat(), Grade::Unknown),
        ("a gadget whose name has no end", b"cantigravity\nxy".to_vec(), Grade::Unsafe),
    ]
}

/// The first block says how long a text of the pickle is, and is a right head.
fn tar_and_pickle() -> Vec<u8> {
    let rest = [b"0", &evil()[..]].concat();
    let mut head = [0; 512];
    head[..7].copy_from_slice(b"\x80\x04B\xf9\x01\0\0");
    head[124..135].copy_from_slice(format!("{:011o}", rest.len()).as_bytes());
    summed(&mut head, |plain, _| format!("{plain:06o}\0 "));
    [&head[..], &rest].concat()
}

/// Numbers of memo slots as C reads them.
fn numbers() -> Vec<Face> {
    let case = |slot: &[u8]| [b"Np", slot, b"\n0", &evil()].concat();
    vec![
        ("a slot with a zero byte", case(b"0\0"), Grade::Unsafe),
        ("a slot with rubbish behind a zero byte", case(&[b"0\0", &[b'z'; 6000][..]].concat()), Grade::Unsafe),
        ("a slot that is asked for with a zero byte", case(b"0\n0g0\0zz"), Grade::Unsafe),
        ("a slot behind many blanks", case(&[&[b' '; 6000][..], b"\t0"].concat()), Grade::Unsafe),
        ("a slot before many blanks", case(&[b"0", &[b' '; 6000][..]].concat()), Grade::Unknown),
        ("a slot of many zeros", case(&[b'0'; 6000]), Grade::Unknown),
    ]
}

/// Writes the checksum of a tar's head, as bytes or as bytes with a sign.
fn summed(head: &mut [u8; 512], text: impl Fn(u32, i32) -> String) {
    head[148..156].fill(b' ');
    let plain = head.iter().map(|byte| u32::from(*byte)).sum();
    let signed = head.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    head[148..156].copy_from_slice(text(plain, signed).as_bytes());
}

fn tar(data: &[u8], kind: u8, text: impl Fn(u32, i32) -> String, change: impl Fn(&mut [u8; 512])) -> Vec<u8> {
    let mut head = [0; 512];
    head[..6].copy_from_slice(b"m\xe9.pkl");
    head[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    head[156] = kind;
    change(&mut head);
    summed(&mut head, text);
    let padding = vec![0; data.len().next_multiple_of(512) - data.len()];
    [&head[..], data, &padding, &[0; 1024]].concat()
}

fn tars() -> Vec<Face> {
    let evil = evil();
    let usual = |plain: u32, _: i32| format!("{plain:06o}\0 ");
    let same = |_: &mut [u8; 512]| {};
    let ustar = |head: &mut [u8; 512]| head[257..263].copy_from_slice(b"ustar\0");
    let binary = |head: &mut [u8; 512]| {
        head[124..136].fill(0);
        (head[124], head[135]) = (0x80, u8::try_from(evil.len()).unwrap());
    };
    let record = b"22 GNU.sparse.major=1\n";
    vec![
        ("tar, checksum with a sign", tar(&evil, b'0', |_, signed| format!("{signed:06o}\0 "), same), Grade::Unsafe),
        (
            "tar, rubbish behind its checksum",
            tar(&evil, b'0', |plain, _| format!("{plain:06o}\0x"), same),
            Grade::Unsafe,
        ),
        (
            "tar, checksum as Python writes numbers",
            tar(&evil, b'0', |plain, _| format!(" 0o{plain:05o}"), same),
            Grade::Unsafe,
        ),
        ("tar, no name", tar(&evil, b'0', usual, |head| head[..6].fill(0)), Grade::Unsafe),
        ("tar, binary size", tar(&evil, b'0', usual, binary), Grade::Unsafe),
        ("tar, wrong checksum", tar(&evil, b'0', |_, _| "000000\0 ".into(), ustar), Grade::Unsafe),
        ("tar, wrong checksum, harmless", tar(b"hello", b'0', |_, _| "000000\0 ".into(), ustar), Grade::Unknown),
        ("tar, holes", tar(b"hello", b'S', usual, same), Grade::Unknown),
        ("tar, holes by a record", tar(record, b'x', usual, same), Grade::Unknown),
        ("tar, a folder with data", tar(b"hello", b'5', usual, same), Grade::Unknown),
        ("tar, harmless", tar(b"hello", b'0', usual, ustar), Grade::None),
        ("tar, harmless folder", tar(b"", b'5', usual, ustar), Grade::None),
    ]
}

/// Heads of NumPy's files that Python reads differently than they look.
fn arrays() -> Vec<Face> {
    let npy = |fields: &str, data: &[u8]| {
        let head = format!("{{{fields}, 'fortran_order': False, }}\n");
        let size = u16::try_from(head.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\0", &size[..], head.as_bytes(), data].concat()
    };
    let objects = npy("'descr': '|O', 'shape': (1,)", &evil());
    // As many bytes as it looks like have a second array in them.
    let hidden = |fields: &str| npy(&fields.replace("ALL", &objects.len().to_string()), &objects);
    vec![
        ("objects in two texts", npy("'descr': 'o' 'bject', 'shape': (24,)", &evil()), Grade::Unsafe),
        ("two shapes", hidden("'descr': '|b1', 'shape': (ALL,), 'shape': (0,)"), Grade::Unknown),
        ("two shapes by other quotes", hidden("'descr': '|b1', 'shape': (ALL,), \"shape\": (0,)"), Grade::Unknown),
        ("two types", hidden("'descr': '|b1', 'descr': '|V0', 'shape': (ALL,)"), Grade::Unknown),
        ("a type by its letter", hidden("'descr': 'f', 'shape': (ALL,)"), Grade::Unknown),
        ("numbers", npy("'descr': '<f4', 'shape': (1,)", &[0; 4]), Grade::None),
    ]
}

/// Memos that a reader keeps from one pickle to the next, or does not.
fn memos() -> Vec<Face> {
    let text = super::pickles::text;
    let (first, len, dict) = (text("builtins"), text("len"), text("dict"));
    let names = |end: &[u8]| [&b"\x80\x04"[..], &first, b"\x940", &dict, b"\x940", end].concat();
    let one = |text: &[u8]| [&b"\x80\x04"[..], text, b"\x94."].concat();
    let two = [&b"\x80\x04"[..], &first, b"\x94", &len, b"\x94\x86."].concat();
    let call = [b"h\0h\x01\x93", &text("id")[..], b"\x85R."].concat();
    let set = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI00\nI01\ntRcargparse\nNamespace\ntR\
        (N(S'__eq__'\ncbuiltins\ndict\ndtb.";
    vec![
        ("a memo that is kept", [two, names(&call)].concat(), Grade::Unknown),
        ("a memo of three pickles", [one(&text("a")), one(&len), names(&call)].concat(), Grade::Unknown),
        ("a memo that is filled anew", b"\x80\x02K\x01q\0.\x80\x02U\x01bq\0h\0\x86.".to_vec(), Grade::Safe),
        ("the same without one before", names(&call), Grade::Safe),
        ("state of what was passed on", set.to_vec(), Grade::Unknown),
        ("state by a type", b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n)R}b.".to_vec(), Grade::Unknown),
    ]
}

/// Names that PyTorch takes for others.
fn names() -> Vec<Face> {
    vec![
        ("program in capitals", zips::one("archive/CODE/__Torch__.PY", b"import os"), Grade::Unknown),
        ("numbers that look like a name by number", zips::one("archive/data/60", b"\x82F.\x9c\xff"), Grade::None),
        ("the same, called", zips::one("archive/data/60", b"\x82F)R.\x9c\xff"), Grade::Unknown),
        ("pickle in capitals", zips::one("archive/Data.PKL", b"hello"), Grade::Unknown),
        // Of `c posix system`, called with `id`.
        (
            "an agent with a pickle as text",
            zips::one("data", br#"{"policy_class": {"\u003aserialized:": "Y3Bvc2l4CnN5c3RlbQooUydpZCcKdFIu"}}"#),
            Grade::Unknown,
        ),
        ("the same where nobody loads it", zips::one("archive/notes", b"{\":serialized:\": \"\"}"), Grade::None),
    ]
}

/// Files of PyTorch from before they were zips: five pickles, and of each storage a count and so many numbers. Whoever loads
/// from the file once more begins behind them.
fn legacy() -> Vec<Face> {
    let begin = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    let asks = b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x007X\x03\0\0\0cpuK\x02NtQ.";
    let other =
        b"\x80\x02(X\x07\0\0\0storagectorch\nDoubleStorage\ncbuiltins\nstr\nX\x01\0\0\x007\x85RX\x03\0\0\0cpuK\x02NtQ0";
    let twice = [&other[..], &asks[2..]].concat();
    let list = b"\x80\x02]q\0X\x01\0\0\x007q\x01a.";
    let numbers = [&2u64.to_le_bytes()[..], &[0x3f; 8]].concat();
    let file = |parts: &[&[u8]]| [&begin[..], &parts.concat()].concat();
    let evil = evil();
    // A count that is the beginning of a pickle: X, four bytes of a length, and text.
    let counted = [b"X\x08\0\0\0\0\0\0".to_vec(), vec![0; 24], b"0".to_vec(), evil.clone()].concat();
    vec![
        ("PyTorch of old", file(&[asks, list, &numbers]), Grade::Safe),
        ("PyTorch of old, a pickle behind its numbers", file(&[asks, list, &numbers, &evil]), Grade::Unsafe),
        ("PyTorch of old, no numbers and a pickle", file(&[b"\x80\x02}.\x80\x02].", &evil]), Grade::Unsafe),
        ("PyTorch of old, bytes behind its numbers", file(&[asks, list, &numbers, b"\xff"]), Grade::Unknown),
        ("two of PyTorch of old", [file(&[asks, list, &numbers]), file(&[asks, list, &numbers])].concat(), Grade::Safe),
        ("PyTorch of old, a storage asked for twice", file(&[&twice, list, &numbers, &numbers, &evil]), Grade::Unknown),
        ("PyTorch of old, too few numbers", file(&[asks, list, &numbers[..12]]), Grade::Unknown),
        ("PyTorch of old, a storage nobody asked for", file(&[b"\x80\x02}.", list, &numbers]), Grade::Unknown),
        (
            "PyTorch of old, a list that is thrown away",
            file(&[asks, b"\x80\x02]X\x01\0\0\x007a0].", &counted]),
            Grade::Unknown,
        ),
        ("PyTorch of old, a text for a list", file(&[asks, b"\x80\x02]X\x01\0\0\x007.", &counted]), Grade::Unknown),
    ]
}

/// A type of NumPy with a state: what stands where it has a part, names and fields, and its flags.
fn dtype(name: &str, composed: &[u8], flags: &[u8]) -> Vec<u8> {
    let made = format!("cnumpy\ndtype\n(S'{name}'\nI0\nI1\ntR(I3\nS'|'\n");
    [made.as_bytes(), composed, b"I8\nI1\n", flags, b"tb"].concat()
}

/// The same, with one field of a type, at the begin.
fn with_field(of: &[u8], flags: &[u8]) -> Vec<u8> {
    dtype("V8", &[&b"N(S'a'\nt(dS'a'\n("[..], of, b"I0\nts"].concat(), flags)
}

/// An array of one such thing, of eight bytes that NumPy would take for an address where it is an object.
fn array(dtype: &[u8]) -> Vec<u8> {
    let begin = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nt";
    [&begin[..], dtype, b"I00\nS'AAAAAAAA'\ntb"].concat()
}

/// What a `numpy.dtype` says of itself is what it is.
fn dtypes() -> Vec<Face> {
    let whole = |dtype: &[u8]| [&array(dtype)[..], b"."].concat();
    let (object, number) = (dtype("O8", b"NNN", b"I63\n"), dtype("f8", b"NNN", b"I0\n"));
    let both = [&b"("[..], &array(&object), &array(&with_field(&number, b"I16\n")), b"t."].concat();
    vec![
        ("numbers of NumPy", whole(&number), Grade::Safe),
        ("objects of NumPy", whole(&object), Grade::Safe),
        ("a type with numbers in it", whole(&with_field(&number, b"I16\n")), Grade::Unknown),
        ("the same, aligned by an old NumPy", whole(&with_field(&number, b"J\x80\xff\xff\xff")), Grade::Unknown),
        ("numbers by an old Python", whole(&dtype("f8", b"NNN", b"L0L\n")), Grade::Safe),
        ("text of NumPy", whole(&dtype("U5", b"NNN", b"I8\n")), Grade::Safe),
        ("a type with objects in it", whole(&with_field(&object, b"I27\n")), Grade::Unknown),
        ("objects, and numbers in a type", both, Grade::Unknown),
        ("objects that say to be none", whole(&dtype("O8", b"NNN", b"I0\n")), Grade::Unknown),
        ("objects that say to be bytes", whole(&dtype("O8", b"NNN", b"I1\n")), Grade::Unknown),
        ("objects that say so in octal", whole(&dtype("O8", b"NNN", b"I011\n")), Grade::Unknown),
        ("a type that hides its objects", whole(&with_field(&object, b"I0\n")), Grade::Unknown),
        ("a type whose field is none", whole(&with_field(b"S'BBBBBBBB'\n", b"I16\n")), Grade::Unknown),
        ("a type that computes what it says", whole(&with_field(&object, b"cbuiltins\nint\n)R")), Grade::Unknown),
        (
            "a type of a type that hides its objects",
            whole(&with_field(&with_field(&object, b"I27\n"), b"I16\n")),
            Grade::Unknown,
        ),
        (
            "a part that hides its objects",
            whole(&dtype("V8", &[&b"("[..], &object, b"(I1\nttNN"].concat(), b"I0\n")),
            Grade::Unknown,
        ),
        ("numbers that say to be objects", whole(&dtype("f8", b"NNN", b"I63\n")), Grade::Unknown),
    ]
}

/// Other ways to a type, or to an array, than those that NumPy writes.
fn types_by_other_ways() -> Vec<Face> {
    let state = b"(I3\nS'|'\nNNNI8\nI1\nI9\ntb";
    let whole = |made: &[u8]| [&array(&[made, state].concat())[..], b"."].concat();
    let given_on = b"ctorch._tensor\n_rebuild_from_type_v2\n(cnumpy\ndtype\ncnumpy\ndtype\n(S'V8'\nt(tI0\ntR.";
    let module = b"\x80\x02(X\x06\0\0\0modulecnumpy\ndtype\nNNtQX\x02\0\0\0O8\x85R.";
    vec![
        ("an array of bytes", b"cnumpy\nndarray\n((I1\ntS'O'\nB\x08\0\0\0AAAAAAAAtR.".to_vec(), Grade::Unknown),
        ("a type by a class", whole(b"cnumpy\ndtype\n(cbuiltins\nobject\ntR"), Grade::Unknown),
        ("a type that another one makes", whole(b"ccopyreg\n__newobj__\n(cnumpy\ndtype\nS'O8'\ntR"), Grade::Unknown),
        ("a type by OBJ", whole(b"(ccopyreg\n__newobj__\ncnumpy\ndtype\nS'O8'\nI0\nI1\no"), Grade::Unknown),
        ("a type by INST", whole(b"(cnumpy\ndtype\nS'O8'\nI0\nI1\nicopyreg\n__newobj__\n"), Grade::Unknown),
        (
            "a type by a computed tuple",
            whole(b"ccopyreg\n__newobj__\ncbuiltins\ntuple\n((cnumpy\ndtype\nS'O8'\nltRR"),
            Grade::Unknown,
        ),
        ("a type whose state is given on", given_on.to_vec(), Grade::Unknown),
        ("a type by a persistent id", zips::one("archive/data.pkl", module), Grade::Unknown),
    ]
}

/// What loads a module, which runs it, and breaks behind that.
fn beginnings() -> Vec<Face> {
    vec![
        ("a module, and rubbish", b"chr_payload\nX\n\xff".to_vec(), Grade::Unknown),
        ("a module behind something, and rubbish", b"N0chr_payload\nX\n\xff".to_vec(), Grade::Unknown),
        ("a module, a name that is none, and rubbish", b"chr_payload.-\nX\n\xff".to_vec(), Grade::Unknown),
        ("a module, and an end that is none", b"chr_payload\nX\n0\x80\x04".to_vec(), Grade::Unknown),
        ("a list of words", "cat\ndog\ndöner\n".into(), Grade::None),
    ]
}

/// `getattr` of what was loaded by its name: as pickles of protocol 2 have methods, and as they do not.
fn attributes() -> Vec<Face> {
    let get = b"c__builtin__\ngetattr\n";
    let class = b"ctorch.optim.lr_scheduler\nOneCycleLR\n";
    let of = |class: &[u8], name: &str| [class, b"S'", name.as_bytes(), b"'\n\x86"].concat();
    let two = |parts: &[&[u8]]| [&b"\x80\x02"[..], &parts.concat(), b"."].concat();
    let plain = of(class, "_annealing_cos");
    let slot = |given: &[u8]| two(&[get, b"q\0", &plain, b"R0h\0", given]);
    vec![
        ("a method of a class", two(&[get, &plain, b"R"]), Grade::Unknown),
        ("a method of a class, from the memo", slot(&[&plain[..], b"R"].concat()), Grade::Unknown),
        ("a method of a harmless class", two(&[get, &of(b"cbuiltins\nstr\n", "split"), b"R"]), Grade::Unknown),
        ("a method of a class, called", two(&[get, &plain, b"R)R"]), Grade::Unknown),
        ("a method that writes files", two(&[get, &of(b"cpathlib\nPath\n", "write_text"), b"R"]), Grade::Unsafe),
        ("an attribute that leads out", two(&[get, &of(class, "__globals__"), b"R"]), Grade::Unsafe),
        ("an attribute of an attribute", two(&[get, get, &of(class, "a"), b"RS'__globals__'\n\x86R"]), Grade::Unsafe),
        ("a module of a module", two(&[get, &of(b"ctorch\nutils\n", "cpp_extension"), b"R"]), Grade::Unsafe),
        ("a method that is changed", two(&[get, &plain, b"R}b"]), Grade::Unsafe),
        ("an attribute of what a call gave", two(&[get, b"cpathlib\nPath\n)RS'parent'\n\x86R"]), Grade::Unsafe),
        ("an attribute of a class of NumPy", two(&[get, &of(b"cnumpy\ndtype\n", "newbyteorder"), b"R"]), Grade::Unsafe),
        ("an attribute by a name that is none", two(&[get, class, b"K\x05\x86R"]), Grade::Unsafe),
        ("an attribute or something else", two(&[get, class, b"S'a'\nN\x87R"]), Grade::Unsafe),
        ("an attribute by INST", two(&[b"(", class, b"S'a'\ni__builtin__\ngetattr\n"]), Grade::Unsafe),
        ("an attribute by OBJ", two(&[b"(", get, class, b"S'a'\no"]), Grade::Unsafe),
        ("an attribute by NEWOBJ", two(&[get, &plain, b"\x81"]), Grade::Unsafe),
        ("an attribute with a long name", two(&[get, &of(class, &"a".repeat(250)), b"R"]), Grade::Unsafe),
        ("getattr alone", two(&[get]), Grade::Unsafe),
        ("getattr below something", two(&[get, b"N"]), Grade::Unsafe),
        ("getattr, and an end that is none", [&b"\x80\x02"[..], get, &plain].concat(), Grade::Unsafe),
        ("getattr that is dropped", two(&[get, b"0N"]), Grade::Unsafe),
        ("getattr above a mark, dropped", two(&[b"(", get, b"1N"]), Grade::Unsafe),
        ("getattr in a list", two(&[b"]", get, b"a"]), Grade::Unsafe),
        ("getattr in a dictionary", two(&[b"}(S'a'\n", get, b"u"]), Grade::Unsafe),
        ("getattr given to a call", two(&[b"ccollections\nCounter\n", get, b"\x85R"]), Grade::Unsafe),
        ("getattr as a state", two(&[b"ccollections\nCounter\n)R", get, b"b"]), Grade::Unsafe),
        ("getattr from the memo, given on", slot(b"\x85"), Grade::Unsafe),
        ("getattr from the pickle before", [&two(&[get, b"q\0", &plain, b"R"])[..], b"h\0."].concat(), Grade::Unsafe),
    ]
}
