//! Files of tensors in each format, written from the formats' descriptions and not by the program.

/// A tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub name: String,
    /// As safetensors calls it.
    pub dtype: &'static str,
    /// The outermost first.
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

/// Bits of the types that are used here, and how GGUF, ONNX, NumPy and PyTorch call them.
const TYPES: [(&str, usize, u32, u64, &str, &str); 5] = [
    ("F32", 4, 0, 1, "<f4", "FloatStorage"),
    ("F16", 2, 1, 10, "<f2", "HalfStorage"),
    ("BF16", 2, 30, 16, "<V2", "BFloat16Storage"),
    ("I64", 8, 27, 7, "<i8", "LongStorage"),
    ("I8", 1, 24, 3, "|i1", "CharStorage"),
];

fn of(dtype: &str) -> (&'static str, usize, u32, u64, &'static str, &'static str) {
    *TYPES.iter().find(|(name, ..)| *name == dtype).unwrap_or_else(|| panic!("no type {dtype}"))
}

impl Array {
    /// A tensor of these sizes, with other bytes for each seed.
    pub fn new(name: &str, dtype: &'static str, shape: &[u64], seed: u64) -> Array {
        let len = shape.iter().product::<u64>() as usize * of(dtype).1;
        Array { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes: crate::harness::noise(seed, len) }
    }

    fn width(&self) -> usize {
        of(self.dtype).1
    }
}

pub fn safetensors(arrays: &[Array]) -> Vec<u8> {
    let (mut at, mut entries) = (0, Vec::new());
    for Array { name, dtype, shape, bytes } in arrays {
        let end = at + bytes.len();
        entries.push(format!(r#"{name:?}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    arrays.iter().for_each(|array| file.extend_from_slice(&array.bytes));
    file
}

/// How a GGUF file is written.
#[derive(Debug, Clone, Copy)]
pub struct Gguf {
    pub version: u32,
    pub big_endian: bool,
    pub alignment: Option<u32>,
    /// Texts of a vocabulary.
    pub words: usize,
}

impl Default for Gguf {
    fn default() -> Gguf {
        Gguf { version: 3, big_endian: false, alignment: None, words: 10 }
    }
}

impl Gguf {
    pub fn u32(self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub fn u64(self, value: u64) -> [u8; 8] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// A count or length.
    pub fn count(self, value: u64) -> Vec<u8> {
        if self.version == 1 { self.u32(value as u32).to_vec() } else { self.u64(value).to_vec() }
    }

    pub fn text(self, text: &str) -> Vec<u8> {
        [&self.count(text.len() as u64)[..], text.as_bytes()].concat()
    }

    /// What stands in front of the values.
    pub fn front(self, tensors: u64, pairs: u64) -> Vec<u8> {
        [&b"GGUF"[..], &self.u32(self.version), &self.count(tensors), &self.count(pairs)].concat()
    }

    fn values(self) -> (u64, Vec<u8>) {
        let mut out = [&self.text("general.architecture")[..], &self.u32(8), &self.text("llama")].concat();
        out.extend([&self.text("tokenizer.ggml.tokens")[..], &self.u32(9), &self.u32(8)].concat());
        out.extend(self.count(self.words as u64));
        (0..self.words).for_each(|word| out.extend(self.text(&format!("word {word}"))));
        out.extend([&self.text("tokenizer.ggml.scores")[..], &self.u32(9), &self.u32(6)].concat());
        out.extend([&self.count(3)[..], &[0; 12]].concat());
        out.extend([&self.text("flag")[..], &self.u32(7), &[1]].concat());
        if let Some(alignment) = self.alignment {
            out.extend([&self.text("general.alignment")[..], &self.u32(4), &self.u32(alignment)].concat());
        }
        (4 + u64::from(self.alignment.is_some()), out)
    }

    /// One tensor as the header names it.
    pub fn info(self, array: &Array, offset: u64) -> Vec<u8> {
        let mut out = [&self.text(&array.name)[..], &self.u32(array.shape.len() as u32)].concat();
        array.shape.iter().rev().for_each(|size| out.extend(self.count(*size)));
        out.extend([&self.u32(of(array.dtype).2)[..], &self.u64(offset)].concat());
        out
    }

    pub fn file(self, arrays: &[Array]) -> Vec<u8> {
        let alignment = u64::from(self.alignment.unwrap_or(32));
        let (pairs, values) = self.values();
        let mut file = [self.front(arrays.len() as u64, pairs), values].concat();
        let mut offset = 0u64;
        for array in arrays {
            file.extend(self.info(array, offset));
            offset = (offset + array.bytes.len() as u64).next_multiple_of(alignment);
        }
        for array in arrays {
            file.resize(file.len().next_multiple_of(alignment as usize), 0);
            file.extend_from_slice(&array.bytes);
        }
        file.resize(file.len().next_multiple_of(alignment as usize), 0);
        file
    }
}

/// How a zip file is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Zip {
    /// Entries begin at multiples of this, by an extra field, as PyTorch has it.
    pub alignment: usize,
    /// With the long form of everything.
    pub long: bool,
    pub remark: &'static str,
}

impl Zip {
    pub fn file(self, entries: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut file, mut list) = (Vec::new(), Vec::new());
        for (name, bytes) in entries {
            let local = file.len() as u64;
            let plain = local as usize + 30 + name.len() + 4;
            let padding = if self.alignment > 1 { plain.next_multiple_of(self.alignment) - plain } else { 0 };
            let len = bytes.len() as u32;
            file.extend_from_slice(&common(b"PK\x03\x04", len, len, name));
            file.extend_from_slice(&((padding + 4) as u16).to_le_bytes());
            file.extend_from_slice(name.as_bytes());
            file.extend_from_slice(&[&b"FB"[..], &(padding as u16).to_le_bytes(), &vec![b'Z'; padding]].concat());
            file.extend_from_slice(bytes);
            let long = [
                &[1, 0, 24, 0][..],
                &u64::from(len).to_le_bytes(),
                &u64::from(len).to_le_bytes(),
                &local.to_le_bytes(),
            ]
            .concat();
            let (short, extra, at) =
                if self.long { (u32::MAX, long, u32::MAX) } else { (len, Vec::new(), local as u32) };
            list.extend_from_slice(&common(b"PK\x01\x02\0\0", short, short, name));
            list.extend_from_slice(&(extra.len() as u16).to_le_bytes());
            list.extend_from_slice(&[0; 2 + 2 + 2 + 4]);
            list.extend_from_slice(&at.to_le_bytes());
            list.extend_from_slice(name.as_bytes());
            list.extend_from_slice(&extra);
        }
        self.end(file, &list, entries.len() as u64)
    }

    fn end(self, mut file: Vec<u8>, list: &[u8], count: u64) -> Vec<u8> {
        let (begin, bytes) = (file.len() as u64, list.len() as u64);
        file.extend_from_slice(list);
        let (mut short, mut at, mut len) = (count as u16, begin as u32, bytes as u32);
        if self.long {
            let record = file.len() as u64;
            file.extend_from_slice(&[&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8]].concat());
            [count, count, bytes, begin].iter().for_each(|n| file.extend_from_slice(&n.to_le_bytes()));
            file.extend_from_slice(&[&b"PK\x06\x07"[..], &[0; 4], &record.to_le_bytes(), &[1, 0, 0, 0]].concat());
            (short, at, len) = (u16::MAX, u32::MAX, u32::MAX);
        }
        file.extend_from_slice(&[&b"PK\x05\x06"[..], &[0; 4], &short.to_le_bytes(), &short.to_le_bytes()].concat());
        file.extend_from_slice(&[len.to_le_bytes(), at.to_le_bytes()].concat());
        file.extend_from_slice(&(self.remark.len() as u16).to_le_bytes());
        file.extend_from_slice(self.remark.as_bytes());
        file
    }
}

/// What headers of entries share, up to the length of the name.
fn common(magic: &[u8], packed: u32, bytes: u32, name: &str) -> Vec<u8> {
    let mut out = [magic, &[0; 2 + 2 + 2 + 4 + 4]].concat();
    out.extend([packed.to_le_bytes(), bytes.to_le_bytes()].concat());
    out.extend((name.len() as u16).to_le_bytes());
    out
}

/// A pickle of protocol 2, as `torch.save` writes it for a dictionary of tensors.
pub fn state(arrays: &[Array]) -> Vec<u8> {
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let number = |n: u64| [&b"J"[..], &(n as u32).to_le_bytes()].concat();
    let tuple = |parts: &[Vec<u8>]| [&b"("[..], &parts.concat(), b"t"].concat();
    let mut out = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    for (key, array) in arrays.iter().enumerate() {
        let class = format!("ctorch\n{}\n", of(array.dtype).5).into_bytes();
        let numbers = array.bytes.len() / array.width();
        let id = tuple(&[text("storage"), class, text(&key.to_string()), text("cpu"), number(numbers as u64)]);
        let strides =
            (0..array.shape.len()).map(|at| number(array.shape[at + 1..].iter().product())).collect::<Vec<_>>();
        let sizes: Vec<_> = array.shape.iter().map(|size| number(*size)).collect();
        let storage = [id, b"Q".to_vec()].concat();
        let hooks = b"ccollections\nOrderedDict\n)R".to_vec();
        let parts = tuple(&[storage, number(0), tuple(&sizes), tuple(&strides), b"\x89".to_vec(), hooks]);
        out.extend([text(&array.name), b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), parts, b"R".to_vec()].concat());
    }
    out.extend_from_slice(b"u.");
    out
}

pub fn torch_with(pickle: &[u8], arrays: &[Array], zip: Zip) -> Vec<u8> {
    let names: Vec<String> = (0..arrays.len()).map(|key| format!("archive/data/{key}")).collect();
    let mut entries: Vec<(&str, &[u8])> = vec![("archive/data.pkl", pickle), ("archive/byteorder", &b"little"[..])];
    entries.extend(names.iter().zip(arrays).map(|(name, array)| (name.as_str(), &array.bytes[..])));
    entries.push(("archive/version", &b"3\n"[..]));
    zip.file(&entries)
}

pub fn torch(arrays: &[Array]) -> Vec<u8> {
    torch_with(&state(arrays), arrays, Zip { alignment: 64, ..Zip::default() })
}

pub fn npy(array: &Array) -> Vec<u8> {
    let sizes: Vec<String> = array.shape.iter().map(|size| format!("{size},")).collect();
    let descr = of(array.dtype).4;
    npy_with(
        1,
        &format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", sizes.join(" ")),
        &array.bytes,
    )
}

pub fn npy_with(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let front = if version == 1 { 10 } else { 12 };
    let len = (front + header.len() + 1).next_multiple_of(64) - front;
    let mut file = [&b"\x93NUMPY"[..], &[version, 0]].concat();
    if version == 1 {
        file.extend((len as u16).to_le_bytes());
    } else {
        file.extend((len as u32).to_le_bytes());
    }
    file.extend_from_slice(format!("{header:<width$}\n", width = len - 1).as_bytes());
    file.extend_from_slice(data);
    file
}

pub fn npz(arrays: &[Array]) -> Vec<u8> {
    let files: Vec<(String, Vec<u8>)> =
        arrays.iter().map(|array| (format!("{}.npy", array.name), npy(array))).collect();
    let entries: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    Zip::default().file(&entries)
}

/// A number of a protocol buffer.
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field that holds bytes.
pub fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A field that holds a number.
pub fn numeral(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// A tensor as ONNX has it, without its data.
fn onnx_front(array: &Array) -> Vec<u8> {
    let sizes: Vec<Vec<u8>> = array.shape.iter().map(|size| numeral(1, *size)).collect();
    [sizes.concat(), numeral(2, of(array.dtype).3), field(8, array.name.as_bytes())].concat()
}

pub fn onnx_tensor(array: &Array) -> Vec<u8> {
    [onnx_front(array), field(9, &array.bytes)].concat()
}

/// One whose data lie in another file.
pub fn onnx_outside(array: &Array, file: &str, offset: u64) -> Vec<u8> {
    let pair = |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let (offset, length) = (offset.to_string(), array.bytes.len().to_string());
    [onnx_front(array), pair("location", file), pair("offset", &offset), pair("length", &length), numeral(14, 1)]
        .concat()
}

/// A model of a graph.
pub fn onnx_model(graph: &[u8]) -> Vec<u8> {
    [numeral(1, 10), field(2, b"tests"), field(7, graph), field(8, &numeral(2, 21))].concat()
}

pub fn onnx(arrays: &[Array]) -> Vec<u8> {
    let node = field(1, &[field(1, b"x"), field(2, b"y"), field(4, b"Relu")].concat());
    let tensors: Vec<Vec<u8>> = arrays.iter().map(|array| field(5, &onnx_tensor(array))).collect();
    onnx_model(&[node, field(2, b"graph"), tensors.concat()].concat())
}
