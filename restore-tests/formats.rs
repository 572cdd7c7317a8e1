//! Formats of files of tensors: what is read of good ones, and that nothing else comes of bad ones than a note.

pub mod containers;
mod hostile;

use containers::*;
use holdfast::model::format::{Found, Malformed, Model, Place, Tensor, read};
use proptest::collection::vec;
use proptest::prelude::*;

fn arrays() -> Vec<Array> {
    vec![
        Array::new("layer.0.weight", "F32", &[20, 30], 1),
        Array::new("layer.0.bias", "F32", &[20], 2),
        Array::new("embed", "F16", &[64, 3, 2], 3),
        Array::new("empty", "F32", &[0, 7], 4),
        Array::new("scalar", "I64", &[], 5),
        Array::new("bytes", "I8", &[333], 6),
    ]
}

fn model(file: &[u8]) -> Model {
    match read(&file.to_vec(), file.len() as u64).unwrap() {
        Found::Model(model) => *model,
        other => panic!("{other:?}"),
    }
}

/// What is wrong with a file, and where.
fn wrong(file: &[u8]) -> Malformed {
    match read(&file.to_vec(), file.len() as u64).unwrap() {
        Found::Malformed(_, what) => what,
        other => panic!("{other:?}"),
    }
}

fn slice<'f>(file: &'f [u8], tensor: &Tensor) -> &'f [u8] {
    let (begin, end) = tensor.range().unwrap_or((0, 0));
    &file[begin as usize..end as usize]
}

/// Everything that a container keeps of the tensors is found in it.
fn holds(file: &[u8], arrays: &[Array], format: &str) {
    let model = model(file);
    assert_eq!((model.format.name(), model.packed), (format, 0));
    let mut found: Vec<&Tensor> = model.tensors.iter().collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let mut arrays = arrays.to_vec();
    arrays.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(found.len(), arrays.len(), "{found:?}");
    for (tensor, array) in found.iter().zip(&arrays) {
        assert_eq!((&tensor.name, &tensor.dtype[..]), (&array.name, array.dtype), "{format}");
        assert_eq!(tensor.shape.as_ref(), Some(&array.shape), "{format}: {}", array.name);
        assert_eq!(slice(file, tensor), array.bytes, "{format}: {}", array.name);
    }
    apart(&model, file.len() as u64);
}

/// Places of tensors lie within the file; sections are in order and apart.
fn apart(model: &Model, file_bytes: u64) {
    for tensor in &model.tensors {
        assert!(tensor.range().is_none_or(|(begin, end)| begin <= end && end <= file_bytes), "{tensor:?}");
    }
    assert!(model.header.0 <= model.header.1 && model.header.1 <= file_bytes, "{:?}", model.header);
    let mut at = 0;
    for (begin, end) in model.sections() {
        assert!(at <= begin && begin < end && end <= file_bytes, "{begin} to {end} behind {at}");
        at = end;
    }
}

/// All files that the tests begin with.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let arrays = arrays();
    let gguf = |gguf: Gguf| gguf.file(&arrays);
    let zip = |zip: Zip| torch_with(&state(&arrays), &arrays, zip);
    vec![
        ("safetensors", safetensors(&arrays)),
        ("gguf", gguf(Gguf::default())),
        ("gguf", gguf(Gguf { version: 2, ..Gguf::default() })),
        ("gguf", gguf(Gguf { version: 1, ..Gguf::default() })),
        ("gguf", gguf(Gguf { big_endian: true, ..Gguf::default() })),
        ("gguf", gguf(Gguf { alignment: Some(4096), ..Gguf::default() })),
        ("gguf", gguf(Gguf { words: 30_000, ..Gguf::default() })),
        ("pytorch", torch(&arrays)),
        ("pytorch", zip(Zip { long: true, alignment: 64, ..Zip::default() })),
        ("pytorch", zip(Zip { remark: "PK\u{5}\u{6} is no end", ..Zip::default() })),
        ("onnx", onnx(&arrays)),
        ("npz", npz(&arrays)),
    ]
}

#[test]
fn tensors_are_found_in_every_container() {
    for (format, file) in files() {
        holds(&file, &arrays(), format);
    }
    for array in arrays() {
        let file = npy(&array);
        holds(&file, &[Array { name: String::new(), ..array }], "npy");
    }
    holds(&safetensors(&[]), &[], "safetensors");
    holds(&Gguf::default().file(&[]), &[], "gguf");
    holds(&onnx(&[]), &[], "onnx");
    let bf16 = [Array::new("a", "BF16", &[9], 7)];
    for (format, file) in [("safetensors", safetensors(&bf16)), ("pytorch", torch(&bf16)), ("onnx", onnx(&bf16))] {
        holds(&file, &bf16, format);
    }
    holds(&Gguf::default().file(&bf16), &bf16, "gguf");
}

#[test]
fn versions_and_headers_are_told() {
    let of = |file: &[u8]| {
        let model = model(file);
        (model.version, model.header)
    };
    let arrays = arrays();
    assert_eq!(of(&Gguf { version: 2, ..Gguf::default() }.file(&arrays)).0, Some(2));
    assert_eq!(of(&Gguf { big_endian: true, ..Gguf::default() }.file(&arrays)).0, Some(3));
    assert_eq!(of(&onnx(&arrays)).0, Some(10));
    assert_eq!(of(&npy(&arrays[0])), (Some(1), (0, 128)));
    let file = torch(&arrays);
    let (_, (begin, end)) = of(&file);
    assert!(file[begin as usize..].starts_with(b"PK\x01\x02") && end == file.len() as u64);
}

/// A long list of a header is a section of its own: it is the same in other files of the family.
#[test]
fn a_vocabulary_is_a_section() {
    let sections = |words| model(&Gguf { words, ..Gguf::default() }.file(&arrays())).sections().len();
    assert_eq!(sections(30_000), sections(10) + 1);
}

#[test]
fn other_files_are_no_models() {
    let dos = [&b"MZ"[..], &[0; 500]].concat();
    let zip = |name: &str| Zip::default().file(&[(name, &[7; 300]), ("archive/data.pkl", b"\x80\x02}.")]);
    let others: [(&str, Vec<u8>); 12] = [
        ("nothing", Vec::new()),
        ("one byte", vec![8]),
        ("a program", dos),
        ("text", b"{\"weight_map\": {}}".to_vec()),
        ("text with a brace", b"let a = {\"b\": 1}".to_vec()),
        ("zeros", vec![0; 5000]),
        ("a document", zip("mimetype")),
        ("a jar", zip("META-INF/MANIFEST.MF")),
        ("something else in a protocol buffer", [numeral(1, 3), field(2, &[1; 200])].concat()),
        ("something that begins like one", [&numeral(1, 3)[..], &field(2, &[1; 200]), &[0xff; 30]].concat()),
        ("a short one", onnx_model(&[])[..9].to_vec()),
        ("part of a magic number", b"GGU".to_vec()),
    ];
    for (what, file) in others {
        let found = read(&file, file.len() as u64).unwrap();
        assert!(matches!(found, Found::Other), "{what}: {found:?}");
    }
}

#[test]
fn numpy_says_what_it_holds() {
    let of = |file: &[u8]| {
        let Tensor { dtype, shape, place, .. } = &model(file).tensors[0];
        let Place::Here(begin, end) = place else { panic!("{place:?}") };
        (dtype.to_string(), shape.clone().unwrap(), end - begin)
    };
    let header = |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': True, 'shape': {shape}}}");
    let all = [
        ("'>f4'", "(2, 3)", (">f4", vec![2, 3], 24)),
        ("'<U5'", "(2,)", ("<U5", vec![2], 40)),
        ("'|S3'", "()", ("|S3", vec![], 3)),
        ("'<M8[ns]'", "(4L,)", ("<M8[ns]", vec![4], 32)),
        ("'|b1'", "(3)", ("BOOL", vec![3], 3)),
        ("'|O'", "(3,)", ("|O", vec![3], 64)),
        ("[('a', '<f4'), ('b', '<i8', (2, 2)), ('c', [('d', '|u1')])]", "(1,)", ("structure", vec![1], 64)),
    ];
    for (descr, shape, (dtype, sizes, bytes)) in all {
        let file = npy_with(1, &header(descr, shape), &[5; 64]);
        assert_eq!(of(&file), (dtype.to_owned(), sizes.clone(), bytes), "{descr}");
        assert_eq!(of(&npy_with(3, &header(descr, shape), &[5; 64])), (dtype.to_owned(), sizes, bytes), "{descr}");
    }
}

#[test]
fn pytorch_files_that_are_not_plain_show_their_storages() {
    let arrays = &arrays()[..3];
    let storages = |pickle: &[u8]| {
        let file = torch_with(pickle, arrays, Zip::default());
        let model = model(&file);
        for (tensor, array) in model.tensors.iter().zip(arrays) {
            assert_eq!((slice(&file, tensor), &tensor.dtype[..], &tensor.shape), (&array.bytes[..], "storage", &None));
        }
        model.tensors.iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>()
    };
    let all = ["data/0", "data/1", "data/2"];
    assert_eq!(storages(b""), all);
    assert_eq!(storages(b"\x80\x02}."), all);
    // Something is called that is not known, or is not where it should be.
    assert_eq!(storages(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."), all);
    let good = state(arrays);
    assert_eq!(storages(&good[..good.len() - 2]), all);
    let other = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|part| part == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    assert_eq!(storages(&other(b"X\x01\0\0\x000", b"X\x01\0\0\x009")), all, "no such storage");
    assert_eq!(storages(&other(b"FloatStorage", b"DoubleStorage")), all, "another width");
    assert_eq!(storages(&other(b"J\x58\x02\0\0", b"J\x59\x02\0\0")), all, "another length");
    assert_eq!(storages(&state(&[arrays[0].clone(), arrays[0].clone()])), all, "a name twice");
    // Numbers in the other order of bytes have no names that are known here.
    let entries: [(&str, &[u8]); 3] = [("a/data.pkl", &good), ("a/byteorder", b"big"), ("a/data/0", &arrays[0].bytes)];
    let file = Zip::default().file(&entries);
    assert_eq!(model(&file).tensors[0].dtype, "storage");
}

/// Tensors that share a storage are found in it, each where it lies.
#[test]
fn views_of_one_storage_lie_within_it() {
    let whole = Array::new("whole", "F32", &[6, 4], 1);
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let view = |name: &str, offset: u8, sizes: &[u8], strides: &[u8]| {
        let numbers = |all: &[u8]| [&b"("[..], &all.iter().flat_map(|n| [b'K', *n]).collect::<Vec<_>>(), b"t"].concat();
        let storage =
            [&b"("[..], &text("storage"), b"ctorch\nFloatStorage\n", &text("0"), &text("cpu"), b"K\x18tQ"].concat();
        let parts = [&b"("[..], &storage, &[b'K', offset], &numbers(sizes), &numbers(strides), b"\x89Nt"].concat();
        [&text(name)[..], b"ctorch._utils\n_rebuild_tensor_v2\n", &parts, b"R"].concat()
    };
    let views = [
        view("a", 0, &[6, 4], &[4, 1]),
        view("b", 4, &[2, 4], &[4, 1]),
        view("c", 1, &[6], &[4]),
        view("d", 3, &[0], &[1]),
    ];
    let pickle = [
        &b"\x80\x02}("[..],
        &views.concat(),
        b"u",
        &text("deep"),
        b"}",
        &text("lists"),
        b"](",
        &views[0][6..],
        b"ess.",
    ]
    .concat();
    let file = torch_with(&pickle, std::slice::from_ref(&whole), Zip::default());
    let found = model(&file);
    let begin = found.tensors[0].range().unwrap().0;
    let places: Vec<(&str, u64, u64)> = found
        .tensors
        .iter()
        .map(|t| (&t.name[..], t.range().unwrap().0 - begin, t.range().unwrap().1 - begin))
        .collect();
    assert_eq!(places, [("a", 0, 96), ("b", 16, 48), ("c", 4, 88), ("d", 12, 12), ("deep.lists.0", 0, 96)]);
    assert_eq!(found.sections().len(), 1);
    // One number too far.
    let beyond = [&b"\x80\x02}("[..], &view("a", 1, &[6, 4], &[4, 1]), b"u."].concat();
    assert_eq!(model(&torch_with(&beyond, &[whole], Zip::default())).tensors[0].dtype, "storage");
}

#[test]
fn data_of_onnx_may_lie_elsewhere() {
    let arrays = arrays();
    let outside = field(5, &onnx_outside(&arrays[0], "model.onnx.data", 4096));
    let constant = field(
        5,
        &[field(1, b"value"), field(5, &onnx_tensor(&Array { name: String::new(), ..arrays[1].clone() }))].concat(),
    );
    let node = field(1, &[field(2, b"made"), field(4, b"Constant"), constant].concat());
    let branch = |seed| {
        field(5, &[field(1, b"then"), field(6, &field(5, &onnx_tensor(&Array::new("w", "F32", &[9], seed))))].concat())
    };
    let branches = field(1, &[field(4, b"If"), branch(1), branch(2)].concat());
    let packed = field(5, &[field(1, &[2, 3]), numeral(2, 1), field(8, b"packed"), field(4, &[1; 24])].concat());
    let single = field(5, &[numeral(1, 1), numeral(2, 10), field(8, b"single"), numeral(5, 15_360)].concat());
    let file = onnx_model(&[outside, node, branches, packed, single].concat());
    let model = model(&file);
    let names: Vec<(&str, Option<u64>)> = model.tensors.iter().map(|t| (&t.name[..], t.bytes())).collect();
    let wanted = [("layer.0.weight", 2400), ("made", 80), ("graph.1.w", 36), ("graph.2.w", 36), ("packed", 24)];
    assert_eq!(names[..5], wanted.map(|(name, bytes)| (name, Some(bytes))));
    assert_eq!(names[5..], [("single", None)]);
    let Place::Beside(other) = &model.tensors[0].place else { panic!("{:?}", model.tensors[0]) };
    assert_eq!((&other.file[..], other.offset, other.bytes), ("model.onnx.data", 4096, Some(2400)));
    assert_eq!(model.tensors[5].place, Place::Written);
    assert_eq!(model.sections().len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens to a file, no tensor lies outside of it, and nothing breaks.
    #[test]
    fn damage_is_noted_or_does_no_harm(
        which in 0..12usize, hits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6), cut in any::<prop::sample::Index>(), cuts: bool,
    ) {
        let (_, mut file) = files().swap_remove(which);
        for (at, value, how) in hits {
            // Headers are short: most hits go where they matter.
            let span = if how < 3 { file.len().min(600) } else { file.len() };
            let from = if how == 1 { file.len() - span } else { 0 };
            let at = from + at.index(span);
            file[at] = if how == 2 { [0, 1, 0x7f, 0x80, 0xff][usize::from(value) % 5] } else { value };
        }
        if cuts {
            file.truncate(cut.index(file.len()));
        }
        if let Found::Model(model) = read(&file, file.len() as u64).unwrap() {
            apart(&model, file.len() as u64);
        }
    }

    /// Anything behind the first bytes of a format.
    #[test]
    fn noise_does_no_harm(front in prop::sample::select(vec![
        &b"GGUF\x03\0\0\0"[..], b"GGUF\x01\0\0\0", b"\x93NUMPY\x01\0\x20\0", b"\x08\x0a\x12\x01a\x3a", b"PK\x03\x04", b"\x40\0\0\0\0\0\0\0{\"",
    ]), bytes in vec(prop_oneof![Just(0u8), any::<u8>()], 0..600)) {
        let file = [front, &bytes].concat();
        if let Found::Model(model) = read(&file, file.len() as u64).unwrap() {
            apart(&model, file.len() as u64);
        }
    }
}
