//! The `numpy.dtype` of a pickle: whoever sets its state can make it say that bytes are no objects, though they are taken for
//! addresses of such. Real ones say of themselves what they are.
//!
//! The state is a tuple (NumPy's `arraydescr_setstate`): version, order of bytes, shape and type of a part, names, fields, size,
//! alignment, flags, and of times their units. Of the flags the lowest says that it holds objects, the next that these are
//! pickled as a list and not as bytes.

use super::names::Shape;
use super::value::Value;

/// The flags of types that hold objects.
const OBJECTS: u8 = 3;
/// What a state may have: eight items, and a ninth of types of times.
const LENGTHS: std::ops::RangeInclusive<u8> = 8..=9;

/// What matters of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// How many items it has, 255 for all above.
    len: u8,
    /// The class is among them, or among their items.
    has_dtype: bool,
    /// The first one is a text that names no type of objects.
    names_plain: bool,
    /// A part, names or fields are among them.
    composed: bool,
    flags: Option<u8>,
}

impl Tuple {
    /// Of these items.
    pub fn of(items: &[Value]) -> Tuple {
        // Nobody can tell `None` from other constants here; names are a tuple of texts, fields a dictionary.
        let constant = |value: &Value| matches!(value, Value::Plain | Value::Text(_) | Value::Number(_));
        let text = |value: &Value| matches!(value, Value::Text(text) if !may_be_objects(text));
        Tuple {
            len: u8::try_from(items.len()).unwrap_or(u8::MAX),
            has_dtype: items.iter().any(is_dtype_class),
            names_plain: items.first().is_some_and(text),
            composed: !items.iter().take(8).all(constant),
            flags: items.get(7).and_then(|item| if let Value::Number(flags) = item { Some(*flags) } else { None }),
        }
    }

    /// Whether the class is among its items, or theirs.
    pub fn has_dtype(self) -> bool {
        self.has_dtype
    }

    /// Whether it may be the state or the name of a dtype.
    pub fn matters(self) -> bool {
        self.has_dtype || self.names_plain || LENGTHS.contains(&self.len)
    }
}

fn is_dtype_class(value: &Value) -> bool {
    match value {
        Value::Global(shape) => *shape == Shape::DtypeClass,
        Value::Tuple(tuple) => tuple.has_dtype,
        _ => false,
    }
}

/// `O`, `O8`, `object`, and texts in which such a one is a part.
fn may_be_objects(text: &str) -> bool {
    text.contains('O') || text.to_ascii_lowercase().contains("object")
}

/// What the dtypes of one pickle are.
#[derive(Debug, Default, Clone, Copy)]
pub struct State {
    /// One was made that may hold objects.
    objects: bool,
    /// One that is composed was told to hold none.
    composed: bool,
    forged: bool,
}

impl State {
    /// One was made by what was given to a call of the class.
    pub fn made(&mut self, given: &Value) -> Shape {
        let objects = !matches!(given, Value::Tuple(tuple) if tuple.names_plain);
        self.objects |= objects;
        Shape::Dtype { objects }
    }

    /// The class was given to a call of something else, which may make one, and set its state too.
    pub fn passed_on(&mut self) -> Shape {
        (self.objects, self.forged) = (true, true);
        Shape::Dtype { objects: true }
    }

    /// The state of one was set.
    pub fn told(&mut self, objects: bool, state: &Value) {
        let Value::Tuple(state) = state else {
            self.forged = true;
            return;
        };
        let says_objects = state.flags.is_some_and(|flags| flags & OBJECTS == OBJECTS);
        // A plain one has no flags.
        let as_it_is = match (objects, state.composed) {
            (true, _) => says_objects,
            (false, true) => state.flags.is_some(),
            (false, false) => state.flags == Some(0),
        };
        self.forged |= !as_it_is || !LENGTHS.contains(&state.len);
        self.composed |= state.composed && !says_objects;
    }

    /// Whether none lies. What is composed may be filled later.
    pub fn is_sound(self) -> bool {
        !(self.forged || self.objects && self.composed)
    }
}
