//! What a pickle of PyTorch says of its tensors. Nothing is executed or imported: of the few operations that plain
//! checkpoints consist of, those are followed that put names, shapes and storages together; where anything else
//! occurs, nothing is said. Whether a pickle is harmless is not judged here.

use std::collections::HashMap;

/// Most values, in all; most parts of all tuples; most entries of all dictionaries and lists; most that is remembered. All
/// lists together stay below 40 MiB, also while one of them grows.
const VALUES_MAX: usize = 1 << 19;
const PARTS_MAX: usize = 1 << 20;
const ENTRIES_MAX: usize = 1 << 18;
const MEMO_MAX: usize = 1 << 18;
/// Most tensors, most sizes of all of them, and most bytes of their names.
const TENSORS_MAX: usize = 1 << 15;
const SIZES_MAX: usize = 1 << 18;
const NAMES_BYTES_MAX: usize = 4 << 20;
/// How deep dictionaries may lie in dictionaries, and the longest name that comes of it, in bytes.
const DEPTH_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 1 << 10;
/// Longest key of a storage, in bytes.
const KEY_BYTES_MAX: usize = 64;

/// A tensor, as a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Of the storage.
    pub(super) key: String,
    pub(super) dtype: &'static str,
    /// How many the storage has.
    pub(super) numbers: u64,
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
    /// Whether loading does no more with it than this: no conjugate or negative of what is stored, no state that is set.
    pub(super) plain: bool,
}

impl View {
    /// Whether its numbers lie row by row as they are, without others between them.
    pub(super) fn is_dense(&self) -> bool {
        let mut step = 1u64;
        let dense = self.shape.iter().zip(&self.strides).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == step;
            step = step.saturating_mul(*size);
            fits
        });
        self.plain && (dense || self.shape.contains(&0))
    }
}

/// All tensors by name.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Each with the number of its view.
    names: Vec<(String, u32)>,
    names_bytes: usize,
    views: Vec<View>,
}

impl State {
    /// In the order of their names.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &View)> {
        self.names.iter().filter_map(|(name, view)| Some((name.as_str(), self.views.get(*view as usize)?)))
    }
}

/// What the pickle says; `None` if it is not plain.
pub(super) fn read(bytes: &[u8]) -> Option<State> {
    let mut machine = Machine { rest: bytes, texts: bytes, ..Machine::default() };
    while machine.step()? {}
    let root = machine.stack.pop()?;
    machine.edges.sort_by_key(|edge| edge.owner);
    let mut state = State::default();
    let mut left = ENTRIES_MAX;
    machine.gather(root, &mut String::new(), 0, &mut left, &mut state)?;
    state.views = machine.views;
    state.names.sort_unstable();
    let twice = state.names.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
    (!twice).then_some(state)
}

/// Place of a value among all.
type At = u32;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    /// Nothing that matters.
    Other,
    /// A text: where in the pickle, and how long.
    Text(u32, u32),
    Number(i64),
    /// Something of the module `torch` or another one, of which only these are known.
    Known(Known),
    /// Where among all parts, and how many.
    Tuple(u32, u32),
    /// A dictionary or list.
    Holder,
    /// By its number.
    Storage(u32),
    Tensor(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Rebuild,
    Parameter,
    Dictionary,
    Storage(&'static str),
}

/// An entry of a dictionary or list; in a list without a key.
struct Edge {
    owner: At,
    key: Option<At>,
    value: At,
}

struct Storage {
    dtype: &'static str,
    key: String,
    numbers: u64,
}

#[derive(Default)]
struct Machine<'b> {
    rest: &'b [u8],
    read: u32,
    values: Vec<Value>,
    parts: Vec<At>,
    edges: Vec<Edge>,
    stack: Vec<At>,
    marks: Vec<usize>,
    memo: HashMap<u32, At>,
    storages: Vec<Storage>,
    views: Vec<View>,
    /// Sizes and strides of all views.
    sizes: usize,
    texts: &'b [u8],
}

/// Takes from a list that is not to grow beyond its limit.
fn push<T>(list: &mut Vec<T>, value: T, most: usize) -> Option<u32> {
    let at = u32::try_from(list.len()).ok().filter(|_| list.len() < most)?;
    list.push(value);
    Some(at)
}

impl Machine<'_> {
    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        self.read = self.read.checked_add(u32::try_from(len).ok()?)?;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A line, and where it stands.
    fn line(&mut self) -> Option<(u32, u32)> {
        let len = self.rest.iter().position(|b| *b == b'\n')?;
        let at = self.read;
        self.take(len.checked_add(1)?)?;
        Some((at, u32::try_from(len).ok()?))
    }

    fn put(&mut self, value: Value) -> Option<()> {
        let at = push(&mut self.values, value, VALUES_MAX)?;
        self.stack.push(at);
        Some(())
    }

    fn text(&mut self, len: u64) -> Option<()> {
        let at = self.read;
        self.take(usize::try_from(len).ok()?)?;
        self.put(Value::Text(at, u32::try_from(len).ok()?))
    }

    fn value(&self, at: At) -> Option<Value> {
        self.values.get(at as usize).copied()
    }

    fn pop(&mut self) -> Option<At> {
        // What lies below a mark is out of reach.
        let floor = self.marks.last().copied().unwrap_or(0);
        (self.stack.len() > floor).then(|| self.stack.pop()).flatten()
    }

    fn top(&self) -> Option<At> {
        self.stack.last().copied()
    }

    /// Takes everything above the last mark.
    fn marked(&mut self) -> Option<Vec<At>> {
        let mark = self.marks.pop()?;
        (mark <= self.stack.len()).then(|| self.stack.split_off(mark))
    }

    fn tuple(&mut self, parts: &[At]) -> Option<()> {
        let begin = u32::try_from(self.parts.len()).ok()?;
        for part in parts {
            push(&mut self.parts, *part, PARTS_MAX)?;
        }
        self.put(Value::Tuple(begin, u32::try_from(parts.len()).ok()?))
    }

    fn short_tuple(&mut self, len: usize) -> Option<()> {
        let mut parts = Vec::with_capacity(len);
        for _ in 0..len {
            parts.push(self.pop()?);
        }
        parts.reverse();
        self.tuple(&parts)
    }

    fn remember(&mut self, number: u32) -> Option<()> {
        if self.memo.len() >= MEMO_MAX {
            return None;
        }
        self.memo.insert(number, self.top()?);
        Some(())
    }

    fn recall(&mut self, number: u32) -> Option<()> {
        let at = self.memo.get(&number).copied()?;
        // The same value again: it takes a place of the stack.
        (self.stack.len() < VALUES_MAX).then(|| self.stack.push(at))
    }

    /// Something is done to the topmost value: a tensor is not what was said of it any more.
    fn touch(&mut self) -> Option<()> {
        if let Value::Tensor(view) = self.value(self.top()?)? {
            self.views.get_mut(view as usize)?.plain = false;
        }
        Some(())
    }

    fn entries(&mut self, all: &[At]) -> Option<()> {
        let owner = self.top()?;
        self.touch()?;
        for pair in all.chunks(2) {
            let [key, value] = pair else { return None };
            push(&mut self.edges, Edge { owner, key: Some(*key), value: *value }, ENTRIES_MAX)?;
        }
        Some(())
    }

    fn items(&mut self, all: &[At]) -> Option<()> {
        let owner = self.top()?;
        for value in all {
            push(&mut self.edges, Edge { owner, key: None, value: *value }, ENTRIES_MAX)?;
        }
        Some(())
    }

    /// One operation; whether there are more. `None`: one that is not followed.
    fn step(&mut self) -> Option<bool> {
        let op = self.u8()?;
        match op {
            b'.' => return Some(false),
            // Protocol and frames.
            0x80 => drop(self.u8()?),
            0x95 => drop(self.array::<8>()?),
            b'(' => (self.marks.len() < VALUES_MAX).then(|| self.marks.push(self.stack.len()))?,
            b'0' => drop(self.pop()?),
            b'}' | b']' | 0x8f => self.put(Value::Holder)?,
            b'N' | 0x88 | 0x89 => self.put(Value::Other)?,
            b'q' => self.u8().and_then(|number| self.remember(u32::from(number)))?,
            b'r' => self.u32().and_then(|number| self.remember(number))?,
            0x94 => u32::try_from(self.memo.len()).ok().and_then(|number| self.remember(number))?,
            b'h' => self.u8().and_then(|number| self.recall(u32::from(number)))?,
            b'j' => self.u32().and_then(|number| self.recall(number))?,
            b')' => self.tuple(&[])?,
            0x85..=0x87 => self.short_tuple(usize::from(op - 0x84))?,
            b't' => self.marked().and_then(|parts| self.tuple(&parts))?,
            b's' | b'a' | b'u' | b'e' | 0x90 => self.fill(op)?,
            b'c' | 0x93 => self.global(op)?,
            b'Q' => self.persistent()?,
            b'R' | 0x81 => self.call()?,
            // State that is set: of a module or a dictionary; a tensor may become any other one by it.
            b'b' => {
                self.pop()?;
                self.touch()?;
            }
            _ => self.literal(op)?,
        }
        Some(true)
    }

    fn fill(&mut self, op: u8) -> Option<()> {
        match op {
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.entries(&[key, value])
            }
            b'a' => {
                let value = self.pop()?;
                self.items(&[value])
            }
            b'u' => self.marked().and_then(|all| self.entries(&all)),
            _ => self.marked().and_then(|all| self.items(&all)),
        }
    }

    /// Texts and numbers.
    fn literal(&mut self, op: u8) -> Option<()> {
        match op {
            b'X' | b'T' | b'B' => self.u32().and_then(|len| self.text(u64::from(len))),
            0x8c | b'U' | b'C' => self.u8().and_then(|len| self.text(u64::from(len))),
            0x8d | 0x8e => self.array().map(u64::from_le_bytes).and_then(|len| self.text(len)),
            b'K' => self.u8().and_then(|n| self.put(Value::Number(i64::from(n)))),
            b'M' => self.array().map(u16::from_le_bytes).and_then(|n| self.put(Value::Number(i64::from(n)))),
            b'J' => self.array().map(i32::from_le_bytes).and_then(|n| self.put(Value::Number(i64::from(n)))),
            0x8a => {
                let len = usize::from(self.u8()?);
                let bytes = self.take(len)?;
                // Little-endian, of any length, the last byte has the sign.
                let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
                let mut wide = [if negative { 0xff } else { 0 }; 8];
                wide.get_mut(..len)?.copy_from_slice(bytes);
                self.put(Value::Number(i64::from_le_bytes(wide)))
            }
            b'G' => {
                self.array::<8>()?;
                self.put(Value::Other)
            }
            _ => None,
        }
    }

    fn bytes_of(&self, at: At) -> Option<&[u8]> {
        let Value::Text(from, len) = self.value(at)? else { return None };
        let from = from as usize;
        self.texts.get(from..from.checked_add(len as usize)?)
    }

    /// A name that is imported; anything else than what is known is something else.
    fn global(&mut self, op: u8) -> Option<()> {
        let (module, name) = if op == b'c' {
            let (module, name) = (self.line()?, self.line()?);
            let text = |(at, len): (u32, u32)| self.texts.get(at as usize..at.checked_add(len)? as usize);
            (text(module)?, text(name)?)
        } else {
            let name = self.pop()?;
            let module = self.pop()?;
            (self.bytes_of(module)?, self.bytes_of(name)?)
        };
        let value = match (module, name) {
            (b"torch._utils", b"_rebuild_tensor_v2" | b"_rebuild_tensor") => Value::Known(Known::Rebuild),
            (b"torch._utils", b"_rebuild_parameter") => Value::Known(Known::Parameter),
            (b"collections", b"OrderedDict") => Value::Known(Known::Dictionary),
            (b"torch", class) => {
                let storage = std::str::from_utf8(class).ok().and_then(super::dtype::torch);
                storage.map_or(Value::Other, |dtype| Value::Known(Known::Storage(dtype)))
            }
            _ => Value::Other,
        };
        self.put(value)
    }

    fn parts_of(&self, at: At) -> Option<&[At]> {
        let Value::Tuple(begin, len) = self.value(at)? else { return None };
        let begin = begin as usize;
        self.parts.get(begin..begin.checked_add(len as usize)?)
    }

    /// A storage, by what stands for it: `('storage', class, key, place, numbers)`.
    fn persistent(&mut self) -> Option<()> {
        let id = self.pop()?;
        let &[kind, class, key, _, numbers] = self.parts_of(id)? else { return None };
        let (Some(Value::Known(Known::Storage(dtype))), Some(Value::Number(numbers))) =
            (self.value(class), self.value(numbers))
        else {
            return self.put(Value::Other);
        };
        if self.bytes_of(kind)? != b"storage" {
            return None;
        }
        let key = std::str::from_utf8(self.bytes_of(key)?).ok().filter(|key| key.len() <= KEY_BYTES_MAX)?.to_owned();
        let storage = Storage { dtype, key, numbers: u64::try_from(numbers).ok()? };
        let at = push(&mut self.storages, storage, TENSORS_MAX)?;
        self.put(Value::Storage(at))
    }

    /// A call, which is followed where it makes a tensor or a dictionary.
    fn call(&mut self) -> Option<()> {
        let arguments = self.pop()?;
        let callee = self.pop()?;
        let made = match self.value(callee)? {
            Value::Known(Known::Rebuild) => {
                let view = self.view(arguments)?;
                match view {
                    Some(view) => {
                        self.sizes = self.sizes.saturating_add(view.shape.len());
                        (self.sizes <= SIZES_MAX).then_some(())?;
                        Value::Tensor(push(&mut self.views, view, TENSORS_MAX)?)
                    }
                    None => Value::Other,
                }
            }
            Value::Known(Known::Parameter) => {
                let &[data, ..] = self.parts_of(arguments)? else { return None };
                self.value(data)?
            }
            Value::Known(Known::Dictionary) => Value::Holder,
            _ => Value::Other,
        };
        self.put(made)
    }

    /// A tensor: `(storage, offset, shape, strides, …)`. Nothing if its storage is none that is known.
    fn view(&self, arguments: At) -> Option<Option<View>> {
        let &[storage, offset, shape, strides, ref more @ ..] = self.parts_of(arguments)? else { return None };
        // Behind whether it has gradients, and hooks: that it is the conjugate or the negative of what is stored, say.
        let plain = more.len() <= 2;
        let Value::Storage(storage) = self.value(storage)? else { return Some(None) };
        let storage = self.storages.get(storage as usize)?;
        let (shape, strides) = (self.numbers(shape)?, self.numbers(strides)?);
        let Value::Number(offset) = self.value(offset)? else { return None };
        let view = View {
            key: storage.key.clone(),
            dtype: storage.dtype,
            numbers: storage.numbers,
            offset: u64::try_from(offset).ok()?,
            shape,
            strides,
            plain,
        };
        (view.shape.len() == view.strides.len()).then_some(Some(view))
    }

    fn numbers(&self, at: At) -> Option<Vec<u64>> {
        let parts = self.parts_of(at).filter(|parts| parts.len() <= super::tensors::DIMENSIONS_MAX)?;
        let number = |part: &At| match self.value(*part)? {
            Value::Number(number) => u64::try_from(number).ok(),
            _ => None,
        };
        parts.iter().map(number).collect()
    }

    /// Gathers the tensors below a value, named by the keys that lead to them. `left` bounds the work: one dictionary may be
    /// reached by many ways.
    fn gather(&self, at: At, name: &mut String, depth: usize, left: &mut usize, state: &mut State) -> Option<()> {
        *left = left.checked_sub(1)?;
        match self.value(at)? {
            Value::Tensor(view) => {
                state.names_bytes = state.names_bytes.saturating_add(name.len());
                let few = state.names_bytes <= NAMES_BYTES_MAX;
                few.then(|| push(&mut state.names, (name.clone(), view), TENSORS_MAX))?.map(drop)
            }
            Value::Holder if depth < DEPTH_MAX => self.gather_from(at, name, depth, left, state),
            Value::Tuple(..) if depth < DEPTH_MAX => {
                for (number, part) in self.parts_of(at)?.iter().enumerate() {
                    self.gather_one(&number.to_string(), *part, name, depth, left, state)?;
                }
                Some(())
            }
            Value::Holder | Value::Tuple(..) => None,
            _ => Some(()),
        }
    }

    fn gather_from(&self, at: At, name: &mut String, depth: usize, left: &mut usize, state: &mut State) -> Option<()> {
        let from = self.edges.partition_point(|edge| edge.owner < at);
        let own = self.edges.iter().skip(from).take_while(|edge| edge.owner == at);
        for (number, edge) in own.enumerate() {
            let key = match edge.key {
                None => number.to_string(),
                Some(key) => match self.value(key)? {
                    Value::Text(..) => std::str::from_utf8(self.bytes_of(key)?).ok()?.to_owned(),
                    Value::Number(number) => number.to_string(),
                    _ => return None,
                },
            };
            self.gather_one(&key, edge.value, name, depth, left, state)?;
        }
        Some(())
    }

    fn gather_one(
        &self,
        key: &str,
        at: At,
        name: &mut String,
        depth: usize,
        left: &mut usize,
        state: &mut State,
    ) -> Option<()> {
        let len = name.len();
        if len.saturating_add(key.len()) > NAME_BYTES_MAX {
            return None;
        }
        if len > 0 {
            name.push('.');
        }
        name.push_str(key);
        self.gather(at, name, depth + 1, left, state)?;
        name.truncate(len);
        Some(())
    }
}
