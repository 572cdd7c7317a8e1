//! The `numpy.dtype` of a pickle: whoever sets its state can make it say that bytes are no objects, though they are taken for
//! addresses of such. Real ones say of themselves what they are, and no array is made but by what NumPy writes.
//!
//! The state is a tuple (NumPy's `arraydescr_setstate`): version, order of bytes, type and shape of a part, names, fields, size,
//! alignment, flags, and of times their units. Of the flags the lowest says that it holds objects, the next that these are
//! pickled as a list and not as bytes. Fields are a dictionary of tuples that begin with a type each; it may be filled later,
//! so all is judged at the end.

use super::names::Shape;
use super::value::Value;

/// The flags of types that hold objects.
const OBJECTS: u8 = 3;
/// What a state may have: eight items, and a ninth of types of times.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=9;
/// Most types of one pickle.
const TYPES_MAX: usize = 4096;
/// Most dictionaries that are followed, tuples that may be states, and fields.
const FOLLOWED_MAX: usize = 1 << 18;
/// A dictionary that is not followed.
pub const NOT_FOLLOWED: u32 = u32::MAX;

/// What matters of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// A class of NumPy is among its items: of types, or of arrays.
    pub has_class: bool,
    /// The first one is a text that names no type of objects.
    names_plain: bool,
    /// The type that is the first one.
    first: Option<u32>,
    /// Where its items are kept, if it may be the state of a type.
    state: Option<u32>,
}

impl Tuple {
    /// Whether it may be the name, the state or a field of a type.
    pub fn matters(self) -> bool {
        self.has_class || self.names_plain || self.first.is_some() || self.state.is_some()
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

/// A state, as far as it matters.
#[derive(Debug, Clone, Copy)]
struct State {
    flags: Option<u8>,
    part: Option<u32>,
    fields: Option<u32>,
    /// Something stands where none of these does.
    strange: bool,
}

/// The types of one pickle, and what they are made of.
#[derive(Debug, Default)]
pub struct Dtypes {
    /// Whether each may hold objects by its name.
    types: Vec<bool>,
    /// What they were told to be.
    told: Vec<(u32, State)>,
    states: Vec<State>,
    /// Whether each dictionary has something else than fields.
    maps: Vec<bool>,
    /// Which types a dictionary has as fields.
    fields: Vec<(u32, u32)>,
    forged: bool,
    /// A reader that keeps its memo sees other things.
    confused: bool,
}

impl Dtypes {
    /// A tuple of these items.
    pub fn tuple(&mut self, items: &[Value]) -> Tuple {
        let text = |value: &Value| matches!(value, Value::Text(text) if !may_be_objects(text));
        let direct = |value: &Value| has_class(value) && matches!(value, Value::Global(_));
        // Nobody writes a class into a tuple of a tuple.
        self.forged |= items.iter().any(|item| has_class(item) && !direct(item));
        let state = LENGTHS.contains(&items.len()).then(|| self.state(items)).flatten();
        Tuple {
            has_class: items.iter().any(has_class),
            names_plain: items.first().is_some_and(text),
            first: items.first().and_then(|item| if let Value::Dtype(id) = item { Some(*id) } else { None }),
            state,
        }
    }

    fn state(&mut self, items: &[Value]) -> Option<u32> {
        let constant = |value: Option<&Value>| matches!(value, Some(Value::Plain | Value::Number(_) | Value::Text(_)));
        let part = match items.get(2) {
            Some(Value::Tuple(Tuple { first: Some(id), .. })) => Ok(Some(*id)),
            other if constant(other) => Ok(None),
            _ => Err(()),
        };
        let fields = match items.get(4) {
            Some(Value::Map(id)) => Ok(Some(*id)),
            other if constant(other) => Ok(None),
            _ => Err(()),
        };
        let names = constant(items.get(3)) || matches!(items.get(3), Some(Value::Tuple(_)));
        let state = State {
            flags: items.get(7).and_then(|item| if let Value::Number(flags) = item { Some(*flags) } else { None }),
            part: part.unwrap_or(None),
            fields: fields.unwrap_or(None),
            strange: part.is_err() || fields.is_err() || !names,
        };
        if self.states.len() >= FOLLOWED_MAX {
            return None;
        }
        self.states.push(state);
        u32::try_from(self.states.len().saturating_sub(1)).ok()
    }

    /// A new dictionary.
    pub fn map(&mut self) -> Value {
        if self.maps.len() >= FOLLOWED_MAX {
            return Value::Map(NOT_FOLLOWED);
        }
        self.maps.push(false);
        Value::Map(u32::try_from(self.maps.len().saturating_sub(1)).unwrap_or(NOT_FOLLOWED))
    }

    /// Something was put into a dictionary: values, each behind its key.
    pub fn put(&mut self, map: &Value, items: &[Value]) {
        let Value::Map(id) = *map else { return };
        for value in items.iter().skip(1).step_by(2) {
            match value {
                Value::Tuple(Tuple { first: Some(kind), .. }) if self.fields.len() < FOLLOWED_MAX => {
                    self.fields.push((id, *kind));
                }
                _ => {
                    let other = usize::try_from(id).ok().and_then(|id| self.maps.get_mut(id));
                    other.into_iter().for_each(|other| *other = true);
                }
            }
        }
    }

    /// A type was made by what was given to a call of the class.
    pub fn made(&mut self, given: &Value) -> Value {
        if self.types.len() >= TYPES_MAX {
            self.forged = true;
            return Value::Made(Shape::Other);
        }
        self.types.push(!matches!(given, Value::Tuple(Tuple { names_plain: true, has_class: false, .. })));
        Value::Dtype(u32::try_from(self.types.len().saturating_sub(1)).unwrap_or(NOT_FOLLOWED))
    }

    /// The state of one was set.
    pub fn told(&mut self, id: u32, state: &Value) {
        let kept = match state {
            Value::Tuple(Tuple { state: Some(at), .. }) => self.states.get(usize::try_from(*at).unwrap_or(usize::MAX)),
            _ => None,
        };
        match kept.copied() {
            Some(state) if self.told.len() < FOLLOWED_MAX => self.told.push((id, state)),
            _ => self.forged = true,
        }
    }

    /// A class goes where none of what NumPy writes has one.
    pub fn forge(&mut self) {
        self.forged = true;
    }

    /// A reader that keeps its memo takes another thing of this kind.
    pub fn confuse(&mut self) {
        self.confused = true;
    }

    /// Whether no type lies.
    pub fn are_sound(&self) -> bool {
        let holds = self.holding();
        let has = |id: u32| usize::try_from(id).ok().and_then(|id| holds.get(id)).copied().unwrap_or(true);
        let bad = |id: u32| usize::try_from(id).ok().and_then(|id| self.maps.get(id)).copied().unwrap_or(true);
        let is_sound = |(id, state): &(u32, State)| {
            let composed = state.part.is_some() || state.fields.is_some();
            let flags = match state.flags {
                Some(flags) if has(*id) => flags & OBJECTS == OBJECTS,
                // What has no objects has no use for these, and parts of numbers may have any others.
                Some(flags) => composed || flags & OBJECTS == 0,
                None => false,
            };
            let lies = state.strange || state.fields.is_some_and(bad) || composed && self.confused;
            flags && !lies
        };
        !self.forged && self.told.iter().all(is_sound)
    }

    /// Whether each type holds objects, by itself or by what it is made of.
    fn holding(&self) -> Vec<bool> {
        let mut holds = self.types.clone();
        loop {
            let mut more = false;
            for (id, state) in &self.told {
                let has = |id: u32| usize::try_from(id).ok().and_then(|id| holds.get(id)).copied().unwrap_or(true);
                let of_fields = |map: u32| self.fields.iter().any(|(of, kind)| *of == map && has(*kind));
                let found = state.part.is_some_and(has) || state.fields.is_some_and(of_fields);
                let own = usize::try_from(*id).ok().and_then(|id| holds.get_mut(id));
                if let Some(own) = own.filter(|own| found && !**own) {
                    (*own, more) = (true, true);
                }
            }
            if !more {
                return holds;
            }
        }
    }
}
