//! The `numpy.dtype` of a pickle: whoever sets its state can make it say that bytes are no objects, though they are taken for
//! addresses of such. Real ones say of themselves what they are, and no array is made but by what NumPy writes.
//!
//! The state is a tuple (NumPy's `arraydescr_setstate`): version, order of bytes, type and shape of a part, names, fields, size,
//! alignment, flags, and of times their units. Of the flags the lowest says that it holds objects, the next that these are
//! pickled as a list and not as bytes. Types of parts or fields say at which bytes these lie, and NumPy believes them: they are
//! unknown, as nobody could follow what is changed of them later.

use super::names::Shape;
use super::value::{Tuple, Value};

/// The flags of types that hold objects.
const OBJECTS: u8 = 3;

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
