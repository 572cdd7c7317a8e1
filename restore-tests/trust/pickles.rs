//! Pickles that would do harm, byte by byte. Nothing here is ever loaded by anything that executes it.

use holdfast::model::verdict::Grade;
use std::io::Write;

/// A name for the case, and the file.
pub type Case = (String, Vec<u8>);

/// A name, bytes that are one thing to one reader and another to the next, and what is to be said of them.
pub type Face = (&'static str, Vec<u8>, Grade);

/// Names by which published bypasses of scanners reached code, commands, files or the network.
const GADGETS: &[(&str, &str)] = &[
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "__import__"),
    ("builtins", "getattr"),
    ("__builtin__", "compile"),
    ("pip", "main"),
    ("pip._internal", "main"),
    ("pty", "spawn"),
    ("runpy", "_run_code"),
    ("runpy", "run_path"),
    ("cProfile", "run"),
    ("cProfile", "runctx"),
    ("profile", "run"),
    ("pdb", "run"),
    ("bdb", "Bdb.run"),
    ("trace", "Trace.run"),
    ("timeit", "timeit"),
    ("code", "InteractiveInterpreter.runcode"),
    ("ctypes", "CDLL"),
    ("pydoc", "locate"),
    ("pydoc", "pipepager"),
    ("importlib", "import_module"),
    ("_frozen_importlib", "_gcd_import"),
    ("marshal", "loads"),
    ("types", "CodeType"),
    ("types", "FunctionType"),
    ("uuid", "_get_command_stdout"),
    ("_osx_support", "_read_output"),
    ("_aix_support", "_read_cmd_output"),
    ("distutils.file_util", "write_file"),
    ("distutils.spawn", "spawn"),
    ("numpy.f2py.crackfortran", "getlincoef"),
    ("numpy.f2py.crackfortran", "myeval"),
    ("numpy.testing._private.utils", "runstring"),
    ("operator", "methodcaller"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("functools", "reduce"),
    ("logging", "FileHandler"),
    ("logging.config", "_resolve"),
    ("_io", "FileIO"),
    ("io", "open"),
    ("pkgutil", "resolve_name"),
    ("torch._inductor.codecache", "compile_file"),
    ("torch.serialization", "load"),
    ("torch.utils._config_module", "load_config"),
    ("torch.utils.collect_env", "run"),
    ("torch.utils.bottleneck.__main__", "run_autograd_prof"),
    ("torch.utils.data.datapipes.utils.decoder", "basichandlers"),
    ("torch._dynamo.guards", "GuardBuilder.get"),
    ("torch.jit.unsupported_tensor_ops", "execWrapper"),
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression"),
    ("torch.hub", "load"),
    ("idlelib.pyshell", "ModifiedInterpreter.runcode"),
    ("idlelib.autocomplete", "AutoComplete.get_entity"),
    ("idlelib.run", "Executive.runcode"),
    ("lib2to3.pgen2.grammar", "Grammar.loads"),
    ("lib2to3.pgen2.pgen", "ParserGenerator.make_label"),
    ("imaplib", "IMAP4_stream"),
    ("webbrowser", "open"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
    ("asyncio", "run"),
    ("multiprocessing.util", "spawnv_passfds"),
    ("doctest", "debug_script"),
    ("ensurepip", "_run_pip"),
    ("mlflow.projects.backend.local", "_run_entry_point"),
    ("pandas.io.pickle", "read_pickle"),
    ("pandas", "read_pickle"),
    ("pickle", "loads"),
    ("_pickle", "Unpickler.load"),
    ("cloudpickle.cloudpickle", "_make_function"),
    ("dill._dill", "_create_function"),
    ("joblib", "load"),
    ("linecache", "getlines"),
    ("shutil", "rmtree"),
    ("socket", "create_connection"),
    ("urllib.request", "urlopen"),
    ("requests", "get"),
    ("http.client", "HTTPSConnection"),
    ("smtplib", "SMTP"),
    ("sqlite3", "connect"),
    ("sys", "settrace"),
    ("threading", "Thread"),
    ("_thread", "start_new_thread"),
    ("bad_company.nobody_knows", "harmless_by_its_name"),
];

/// A short text by an opcode with its length in a byte.
pub fn text(text: &str) -> Vec<u8> {
    [&[0x8c, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// Loads `module.name` by lines and calls it with a text: protocol 0.
pub fn by_lines(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n(S'id'\ntR.").into_bytes()
}

/// The same by values on the stack: protocol 4.
pub fn by_values(module: &str, name: &str) -> Vec<u8> {
    let names = [text(module), text(name)].concat();
    [&[0x80, 4], &names[..], &[0x93], &text("id"), &[0x85, b'R', b'.']].concat()
}

/// All cases.
pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (n, (module, name)) in GADGETS.iter().enumerate() {
        let made = if n % 2 == 0 { by_values(module, name) } else { by_lines(module, name) };
        cases.push((format!("gadget {module}.{name}"), made));
    }
    let mut add = |name: &str, bytes: Vec<u8>| cases.push((name.to_owned(), bytes));
    paths(&mut add);
    names(&mut add);
    hidden(&mut add);
    cases
}

/// Ways by which a name reaches the stack.
fn paths(add: &mut dyn FnMut(&str, Vec<u8>)) {
    let call = [&text("id")[..], &[0x85, b'R', b'.']].concat();
    let four = |body: &[u8]| [&[0x80, 4], body, &[0x93], &call].concat();
    let (os, system) = (text("os"), text("system"));
    add("memo by MEMOIZE", four(&[&os[..], &[0x94, b'0'], &system, &[0x94, b'0', b'h', 0, b'h', 1]].concat()));
    add("memo by BINPUT", four(&[&os[..], b"q\x07", &system, b"q\x0800h\x07h\x08"].concat()));
    add("memo by LONG_BINPUT", four(&[&os[..], b"r\x07\0\x01\0", b"0", b"j\x07\0\x01\0", &system].concat()));
    add("memo by PUT and GET", four(&[&os[..], b"p77\n0g77\n", &system].concat()));
    add(
        "memo slot put twice",
        four(&[&text("collections")[..], b"q\0", b"0", &os, b"q\0", b"0", b"h\0", &system].concat()),
    );
    add("DUP", four(&[&os[..], b"2q\x000", &system].concat()));
    add("BINUNICODE8", four(&[b"\x8d\x02\0\0\0\0\0\0\0os", &system[..]].concat()));
    add("BINUNICODE", four(&[b"X\x02\0\0\0os", &system[..]].concat()));
    add("STRING", four(&[b"S'os'\n", &system[..]].concat()));
    add("STRING with escapes", four(&[b"S'\\x6f\\163'\n", &system[..]].concat()));
    add("UNICODE with escapes", four(&[b"Vo\\u0073\n", &system[..]].concat()));
    add("BINSTRING", four(&[b"T\x02\0\0\0os", &system[..]].concat()));
    add("SHORT_BINSTRING", four(&[b"U\x02os", &system[..]].concat()));
    add("POP of what stands between", four(&[&os[..], b"N0(NN1", &system].concat()));
    add("a name that is computed", {
        let codec = [&text("_codecs")[..], &text("encode"), &[0x93], &text("bf"), &text("rot13"), b"\x86R"].concat();
        four(&[&codec[..], &system].concat())
    });
    add("a name that is no text", four(&[b"K\x05", &system[..]].concat()));
    add("a name in pieces of a tuple", four(&[b"(", &os[..], &system, b"t", &system].concat()));
    add("memo slots as Python reads numbers", b"S'os'\np -0\n0S'system'\np 1_0\n0g+0\ng010\n\x93(S'id'\ntR.".to_vec());
    add("a memo slot of thirty digits", format!("S'os'\np{}\n0cos\nsystem\n(tR.", "9".repeat(30)).into_bytes());
    add("INST", b"(S'id'\nios\nsystem\n.".to_vec());
    add("OBJ", b"(cos\nsystem\nS'id'\no.".to_vec());
    add("OBJ, then POP", b"(cos\nsystem\nS'id'\no0N.".to_vec());
    add("NEWOBJ", b"\x80\x02csubprocess\nPopen\nU\x02id\x85\x81.".to_vec());
    add("NEWOBJ_EX", [b"\x80\x04csubprocess\nPopen\n", &text("id")[..], b"\x85}\x92."].concat());
    add("REDUCE, then POP", b"cos\nsystem\n(S'id'\ntR0N.".to_vec());
    add("only loaded", b"cos\nsystem\n.".to_vec());
    add("EXT1", b"\x80\x02\x82\x05U\x02id\x85R.".to_vec());
    add("EXT2", b"\x80\x02\x83\x05\x01U\x02id\x85R.".to_vec());
    add("EXT4", b"\x80\x02\x84\x05\0\x01\0U\x02id\x85R.".to_vec());
    add("PERSID", b"Pevil\n.".to_vec());
    add("BINPERSID", b"\x80\x02U\x04evilQ.".to_vec());
    add("call of what a call gave", b"c_codecs\nencode\n(VX\ntR(tR.".to_vec());
    add("BUILD on a class", b"ccollections\nOrderedDict\n(dS'__reduce__'\ncbuiltins\nset\nsb.".to_vec());
    add("items set on what is no dictionary", b"cnumpy\nndarray\n(I1\ntRI0\nI1\ns.".to_vec());
}

/// Names that are not what they look like.
fn names(add: &mut dyn FnMut(&str, Vec<u8>)) {
    add("dotted through pathlib", by_values("pathlib", "os.system"));
    add("dotted through torch", by_values("torch", "hub.load"));
    add("dotted through a harmless module", by_values("collections", "abc.sys.modules"));
    add("dotted through a harmless class", by_values("builtins", "dict.__class__.__subclasses__"));
    add("function of a harmless type", by_values("builtins", "str.format"));
    add("module of a module", by_values("torch.serialization", "os"));
    add("lines of Windows", b"cos\r\nsystem\r\n(S'id'\ntR.".to_vec());
    add("a harmless name with a space", by_values("collections ", "OrderedDict"));
    add("a harmless name in other letters", by_values("Collections", "OrderedDict"));
    add("letters that look like others", by_values("cοllections", "OrderedDict"));
    add("an empty module", by_values("", "eval"));
    add("a name of 300 bytes", [b"\x80\x02", format!("cos.{}\nsystem\n(tR.", "x".repeat(300)).as_bytes()].concat());
}

/// Where a pickle is not expected, or breaks.
fn hidden(add: &mut dyn FnMut(&str, Vec<u8>)) {
    let evil = by_lines("os", "system");
    add("after STOP", [b"\x80\x02N.", &evil[..]].concat());
    add("after harmless ones without a mark", [b"N.I1\n.", &evil[..]].concat());
    add("after a million values without a mark", [vec![b'N'; 2 << 20], evil.clone()].concat());
    add("with the memo of the one before", b"S'os'\np0\n.g0\nS'system'\n\x93(S'id'\ntR.".to_vec());
    add("after two of them", [b"\x80\x02N.\x80\x04N.", &evil[..]].concat());
    let head = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    add("among the five of PyTorch's old format", [&head[..], &evil, b"\x80\x02]."].concat());
    add("after the five of PyTorch's old format", [&head[..], b"\x80\x02}.\x80\x02].", &evil].concat());
    add("broken behind the call", [&evil[..evil.len() - 1], b"\xff\xff\xff"].concat());
    add("without an end", evil[..evil.len() - 1].to_vec());
    add("in the dark behind an opcode that is none", [b"\x80\x04\xff", &evil[..]].concat());
    add("protocol 6", [b"\x80\x06", &evil[..]].concat());
    add("a frame that is too long", [b"\x80\x04\x95\xff\xff\0\0\0\0\0\0", &evil[..]].concat());
    add("a frame that ends in an opcode", [b"\x80\x04\x95\x03\0\0\0\0\0\0\0", &evil[..]].concat());
    add("a harmless one whose frame lies", b"\x80\x04\x95\xff\0\0\0\0\0\0\0N.".to_vec());
    add("a memo slot that is empty", b"\x80\x04h\x05.".to_vec());
    add("a stack that is empty", b"\x80\x04R.".to_vec());
    add("text that has no end", b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fos".to_vec());
    add("four million values", [b"\x80\x02".to_vec(), vec![b'N'; 4 << 20], b".".to_vec()].concat());
    add("four million marks", [b"\x80\x02".to_vec(), vec![b'('; 4 << 20], b".".to_vec()].concat());
    let slot = |n: u32| [&b"r"[..], &n.to_le_bytes()].concat();
    add(
        "two million memo slots",
        [b"\x80\x02N".to_vec(), (0..2 << 20).flat_map(slot).collect(), b".".to_vec()].concat(),
    );
    let flood = (0..20_000).flat_map(|n| format!("cx{n}\ny\n0").into_bytes()).collect::<Vec<u8>>();
    add("behind twenty thousand unknown names", [&flood[..], &evil].concat());
    add("gzip", gzip(&evil));
    add("gzip in gzip", gzip(&gzip(&evil)));
    add("second member of a gzip file", [gzip(b""), gzip(&evil)].concat());
    add("zlib", zlib(&evil));
    add("behind the head of a NumPy file", npy("|O", &evil));
    add("objects in a type of parts", npy("[('a', '<f4'), ('b', 'O')]", &evil));
    add("second array of a NumPy file", [npy("<f4", &[0; 4]), npy("|O", &evil)].concat());
    for (name, magic) in [
        ("xz", &b"\xfd7zXZ\0"[..]),
        ("bzip2", b"BZh9"),
        ("zstd", b"\x28\xb5\x2f\xfd"),
        ("7-Zip", b"7z\xbc\xaf\x27\x1c"),
    ] {
        add(&format!("in {name}, which is not opened"), [magic, &[7; 50]].concat());
    }
    let mut tar = tar_entry("pickle", &evil);
    add("tar", [&tar[..], &[0; 1024]].concat());
    tar = tar_entry("harmless", b"hello");
    add("behind the end of a tar", [&tar[..], &[0; 1024], &tar_entry("pickle", &evil)].concat());
}

/// Stored deflate blocks with the head and the end of gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &stored(bytes), &[0; 8]].concat()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    [&[0x78, 0x9c][..], &stored(bytes), &[0; 4]].concat()
}

/// Deflate that packs nothing.
pub fn stored(bytes: &[u8]) -> Vec<u8> {
    let size = u16::try_from(bytes.len()).unwrap();
    let mut out = vec![1];
    out.extend(size.to_le_bytes());
    out.extend((!size).to_le_bytes());
    out.extend(bytes);
    out
}

fn npy(descr: &str, data: &[u8]) -> Vec<u8> {
    let descr = if descr.starts_with('[') { descr.to_owned() } else { format!("'{descr}'") };
    let head = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}\n");
    let mut out = b"\x93NUMPY\x01\0".to_vec();
    out.extend(u16::try_from(head.len()).unwrap().to_le_bytes());
    out.write_all(head.as_bytes()).unwrap();
    out.extend(data);
    out
}

fn tar_entry(name: &str, data: &[u8]) -> Vec<u8> {
    let mut head = [0u8; 512];
    head[..name.len()].copy_from_slice(name.as_bytes());
    head[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    let padding = vec![0; data.len().next_multiple_of(512) - data.len()];
    [&head[..], data, &padding].concat()
}
