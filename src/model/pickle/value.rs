//! The values of a pickle, as symbols.

use super::bytes::Stop;
use super::names::Shape;
use std::collections::HashMap;
use std::rc::Rc;

/// Most values on the stack, and in the memo.
pub const VALUES_MAX: usize = 1 << 20;

/// What the state of a type of NumPy may have: eight items, and a ninth of types of times.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=9;

/// The items of a pickle that is to be one list.
#[derive(Default)]
pub struct Listed {
    /// In their order.
    pub items: Vec<Value>,
    /// How many lists were begun.
    pub lists: usize,
    /// It does more than that.
    pub strange: bool,
}

/// The name of something: a module, and what is in it, with dots where that is an attribute of something.
#[derive(PartialEq, Eq)]
pub struct Name {
    pub module: String,
    pub name: String,
}

impl Name {
    /// Bytes of both.
    pub fn len(&self) -> usize {
        self.module.len().saturating_add(self.name.len())
    }
}

/// A value, as far as it matters.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Numbers, bytes, tuples, sets: nothing that is called or is a name.
    Plain,
    /// Text that may become a name.
    Text(Rc<String>),
    /// A small number.
    Number(u8),
    /// A tuple.
    Tuple(Tuple),
    /// What stands for a storage of PyTorch: the bytes of a number in it, and its key.
    Storage(u8, Rc<String>),
    /// A dictionary.
    Map,
    /// A list.
    List,
    /// What was loaded by its name, and was judged by it; what calling it gives. The name, if it may matter.
    Global(Shape, Option<Rc<Name>>),
    /// A tuple of such a one and a text: with it `getattr` gives what has this name.
    Attribute(Rc<Name>),
    /// What a call gave.
    Made(Shape),
}

impl Value {
    /// Two that differ only in what nobody is to go by are alike.
    pub fn is_like(&self, other: &Value) -> bool {
        let harmless = |value: &Value| match value {
            Value::Plain | Value::Number(_) => true,
            Value::Tuple(tuple) => !tuple.matters(),
            _ => false,
        };
        // Each was judged by its name when it was loaded.
        let loaded = matches!((self, other), (Value::Global(one, _), Value::Global(two, _)) if one == two);
        self == other || loaded || (harmless(self) && harmless(other))
    }
}

/// What matters of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// A class of NumPy is among its items, or among theirs: of types, or of arrays.
    pub has_class: bool,
    /// The first one is a text that names no type of objects.
    pub names_plain: bool,
    /// The flags, if it may be the state of a type without parts.
    pub flags: Option<u8>,
}

impl Tuple {
    /// Of these items.
    pub fn of(items: &[Value]) -> Tuple {
        let text = |value: &Value| matches!(value, Value::Text(text) if !may_be_objects(text));
        let nothing = |at: usize| items.get(at) == Some(&Value::Plain);
        let flags = match items.get(7) {
            Some(Value::Number(flags)) if LENGTHS.contains(&items.len()) && (2..=4).all(nothing) => Some(*flags),
            _ => None,
        };
        Tuple { has_class: items.iter().any(has_class), names_plain: items.first().is_some_and(text), flags }
    }

    /// Whether it may be the name or the state of a type.
    pub fn matters(self) -> bool {
        self.has_class || self.names_plain || self.flags.is_some()
    }
}

/// Whether it is a class of NumPy, or a tuple that has one.
pub fn has_class(value: &Value) -> bool {
    match value {
        Value::Global(shape, _) => matches!(shape, Shape::DtypeClass | Shape::ArrayClass),
        Value::Tuple(tuple) => tuple.has_class,
        _ => false,
    }
}

/// `O`, `O8`, `object`, and texts in which such a one is a part.
fn may_be_objects(text: &str) -> bool {
    text.contains('O') || text.to_ascii_lowercase().contains("object")
}

/// What a memo holds, by the numbers of its slots.
pub type Memo = HashMap<u64, Value>;

/// Puts a value into a slot, if there is room.
pub fn keep_in(memo: &mut Memo, slot: u64, value: Value) -> Result<(), Stop> {
    if memo.len() >= VALUES_MAX && !memo.contains_key(&slot) {
        return Err(Stop::Beyond("its memo, or that of the pickles before, is too large".into()));
    }
    memo.insert(slot, value);
    Ok(())
}

/// Whether this can be the name of something, or a dotted one.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.')
}
