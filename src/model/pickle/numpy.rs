//! The `numpy.dtype` of a pickle: whoever sets its state can make it say that bytes are no objects, though they are taken for
//! addresses of such. Real ones say of themselves what they are, and no array is made but by what NumPy writes.
//!
//! The state is a tuple (NumPy's `arraydescr_setstate`): version, order of bytes, type and shape of a part, names, fields, size,
//! alignment, flags, and of times their units. Of the flags the lowest says that it holds objects, the next that these are
//! pickled as a list and not as bytes. Types of parts or fields say at which bytes these lie, and NumPy believes them: they are
//! unknown, as nobody could follow what is changed of them later.

use super::names::Shape;
use super::value::Value;

/// The flags of types that hold objects.
const OBJECTS: u8 = 3;
/// What a state may have: eight items, and a ninth of types of times.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=9;

/// What matters of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// A class of NumPy is among its items, or among theirs: of types, or of arrays.
    pub has_class: bool,
    /// The first one is a text that names no type of objects.
    names_plain: bool,
    /// The flags, if it may be the state of a type without parts.
    flags: Option<u8>,
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
        Value::Global(shape) => matches!(shape, Shape::DtypeClass | Shape::ArrayClass),
        Value::Tuple(tuple) => tuple.has_class,
        _ => false,
    }
}

/// `O`, `O8`, `object`, and texts in which such a one is a part.
fn may_be_objects(text: &str) -> bool {
    text.contains('O') || text.to_ascii_lowercase().contains("object")
}

/// The type that a call of the class with this makes.
pub fn made(given: &Value) -> Shape {
    let plain = matches!(given, Value::Tuple(Tuple { names_plain: true, has_class: false, .. }));
    Shape::Dtype { objects: !plain }
}

/// Whether a type may be told this of itself. `objects`: it may hold some.
pub fn is_sound(objects: bool, state: &Value) -> bool {
    match state {
        Value::Tuple(Tuple { flags: Some(flags), .. }) => flags & OBJECTS == if objects { OBJECTS } else { 0 },
        _ => false,
    }
}
