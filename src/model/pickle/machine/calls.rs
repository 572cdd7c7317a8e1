//! What a pickle loads by name, and calls.

use super::super::bytes::{Bytes, Stop};
use super::super::names::{Known, Shape, judge};
use super::super::numpy::{is_sound, made};
use super::super::opcodes as op;
use super::super::value::{Name, VALUES_MAX, Value, has_class, is_name};
use super::{CLASS_KEPT, FORGED_DTYPE, LINE_MAX, Machine, NAME_MAX, counted};
use crate::model::verdict::{Finding, Grade, cut};
use std::rc::Rc;

impl Machine<'_> {
    /// Opcodes that load names and call.
    pub(super) fn names(&mut self, code: u8, bytes: &mut Bytes<'_>, start: u64) -> Result<bool, Stop> {
        match code {
            op::GLOBAL => {
                let loaded = self.named_by_lines(bytes, start)?;
                self.push(loaded)?;
            }
            op::INST => {
                let loaded = self.named_by_lines(bytes, start)?;
                self.gathered(start)?;
                self.call(Some(loaded), &Value::Plain, start)?;
            }
            op::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let loaded = self.named_by_values(&module, &name, start)?;
                self.push(loaded)?;
            }
            op::EXT1 => self.extension(counted(bytes, 1)?, start)?,
            op::EXT2 => self.extension(counted(bytes, 2)?, start)?,
            op::EXT4 => self.extension(counted(bytes, 4)?, start)?,
            op::PERSID => {
                bytes.line(NAME_MAX)?;
                self.persistent(&Value::Plain, start)?;
            }
            op::BINPERSID => {
                let id = self.pop()?;
                self.persistent(&id, start)?;
            }
            op::REDUCE => {
                let given = self.pop()?;
                let callee = self.pop_to_call()?;
                self.call(Some(callee), &given, start)?;
            }
            op::NEWOBJ => {
                let given = self.pop()?;
                let callee = self.pop()?;
                self.call(Some(callee), &given, start)?;
            }
            op::NEWOBJ_EX => {
                let given = self.some(2)?;
                self.keeps_classes(&given, start);
                let callee = self.pop()?;
                self.call(Some(callee), &Value::Plain, start)?;
            }
            op::OBJ => {
                let all = self.above_mark()?;
                let callee = all.first().cloned();
                self.keeps_classes(all.get(1..).unwrap_or_default(), start);
                self.call(callee, &Value::Plain, start)?;
            }
            op::BUILD => self.build(start)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn named_by_lines(&mut self, bytes: &mut Bytes<'_>, start: u64) -> Result<Value, Stop> {
        let (module, name) = (bytes.name(LINE_MAX)?, bytes.name(LINE_MAX)?);
        let known = self.named(&module, &name, start);
        // A module is loaded, and so runs, before anything is looked up in it.
        self.loads |= known.grade != Grade::Safe && module.split('.').next().is_some_and(is_name);
        // Loading a module of a package runs it; two words on two lines are found in any list of words.
        self.acted |= known.grade != Grade::Safe && module.contains('.') && is_name(&module) && is_name(&name);
        self.loaded(&module, &name, known.shape)
    }

    fn named_by_values(&mut self, module: &Value, name: &Value, start: u64) -> Result<Value, Stop> {
        if let (Value::Text(module), Value::Text(name)) = (module, name) {
            let known = self.named(module, name, start);
            self.acted |= known.grade != Grade::Safe;
            return self.loaded(module, name, known.shape);
        }
        let computed = matches!(module, Value::Made(_)) || matches!(name, Value::Made(_));
        let why = if computed { "it loads a name that it computes" } else { "it loads what can be no name" };
        self.acted = true;
        // What is computed hides itself, which nothing harmless does.
        let grade = if computed { Grade::Unsafe } else { Grade::Unknown };
        self.find(grade, start, why);
        Ok(Value::Global(Shape::Other, None))
    }

    /// What was loaded, with its name where that is short enough to matter.
    fn loaded(&mut self, module: &str, name: &str, shape: Shape) -> Result<Value, Stop> {
        let bytes = module.len().saturating_add(name.len());
        if bytes > NAME_MAX {
            return Ok(Value::Global(shape, None));
        }
        self.hold(bytes)?;
        let name = Name { module: module.to_owned(), name: name.to_owned() };
        Ok(Value::Global(shape, Some(Rc::new(name))))
    }

    fn named(&mut self, module: &str, name: &str, start: u64) -> Known {
        let known = judge(module, name);
        if known.grade == Grade::Safe {
            return known;
        }
        self.acted |= known.grade == Grade::Unsafe;
        if known.shape != Shape::Attribute {
            self.tell(module, name, known, start);
        }
        known
    }

    fn tell(&mut self, module: &str, name: &str, known: Known, start: u64) {
        let global = cut(&format!("{module}.{name}"), NAME_MAX);
        if self.first_time(&global) {
            let what = format!("it loads {global}: {}", known.why);
            self.keep(Finding {
                grade: known.grade,
                place: self.place.into(),
                offset: start,
                global: Some(global),
                what,
            });
        }
    }

    /// `getattr` of what was loaded by its name and a text gives what a dotted name loads, and is judged like that. Wherever
    /// else it goes it leads anywhere: these leave the stack, and not to be called at once.
    pub(super) fn leave(&mut self, items: &[Value]) {
        let is_attribute = |item: &Value| matches!(item, Value::Global(Shape::Attribute, _));
        if items.iter().any(is_attribute) {
            let (module, name) = ("builtins", "getattr");
            self.tell(module, name, judge(module, name), self.at);
        }
    }

    fn attribute(&mut self, callee: Value, given: &Value, start: u64) -> Value {
        let Value::Attribute(whole) = given else {
            self.leave(&[callee]);
            return Value::Made(Shape::Other);
        };
        self.named(&whole.module, &whole.name, start);
        // It may be a class, or a function, and is one that was loaded.
        Value::Global(Shape::Other, Some(Rc::clone(whole)))
    }

    /// Of two bytes of numbers three in 256 look like this; what is done with it acts.
    fn extension(&mut self, code: u64, start: u64) -> Result<(), Stop> {
        self.find_once(Grade::Unknown, start, &format!("it loads by number, {code}, from a registry that is not here"));
        self.push(Value::Global(Shape::Other, None))
    }

    fn persistent(&mut self, id: &Value, start: u64) -> Result<(), Stop> {
        match id {
            Value::Storage(bytes, key) => {
                if self.storages.len() >= VALUES_MAX {
                    return Err(Stop::Beyond("it has too many storages".into()));
                }
                // One that is asked for as two types is of no known length.
                let known = self.storages.entry(Rc::clone(key)).or_insert(*bytes);
                *known = if *known == *bytes { *bytes } else { 0 };
            }
            _ => self.find_once(Grade::Unknown, start, "it asks for something outside by a persistent id"),
        }
        self.push(Value::Made(Shape::Other))
    }

    /// A call of something that was loaded by its name was judged by it.
    fn call(&mut self, callee: Option<Value>, given: &Value, start: u64) -> Result<(), Stop> {
        self.acted = true;
        let made = match callee {
            Some(callee @ Value::Global(Shape::Attribute, _)) => self.attribute(callee, given, start),
            Some(Value::Global(Shape::DtypeClass, _)) if matches!(given, Value::Tuple(_)) && !has_class(given) => {
                Value::Made(made(given))
            }
            Some(Value::Global(shape, _)) => {
                // Only one call is given a class of arrays, and none is of one, or is given that of types.
                let sound = shape == Shape::Reconstruct || !has_class(given);
                if !sound || matches!(shape, Shape::DtypeClass | Shape::ArrayClass) {
                    self.find_once(Grade::Unknown, start, CLASS_KEPT);
                }
                Value::Made(shape)
            }
            Some(Value::Made(_)) => {
                self.find_once(Grade::Unknown, start, "it calls what another call gave");
                Value::Made(Shape::Other)
            }
            _ => {
                self.find_once(Grade::Unknown, start, "it calls what cannot be called");
                Value::Made(Shape::Other)
            }
        };
        self.push(made)
    }

    fn build(&mut self, start: u64) -> Result<(), Stop> {
        let state = self.pop()?;
        self.acted = true;
        self.keeps_classes(std::slice::from_ref(&state), start);
        match *self.top()? {
            Value::Made(Shape::Dtype { objects }) => {
                if !is_sound(objects, &state) {
                    self.find_once(Grade::Unknown, start, FORGED_DTYPE);
                }
                Ok(())
            }
            Value::Made(Shape::Wrapped) => {
                Err(Stop::Beyond("behind it stands an array that only joblib can read".into()))
            }
            Value::Made(Shape::Given) => {
                self.find_once(Grade::Unknown, start, "it sets the state of what a call may have passed on");
                Ok(())
            }
            Value::Made(_) => Ok(()),
            Value::Global(..) => {
                self.find(Grade::Unsafe, start, "it changes a class, a function or a module itself");
                Ok(())
            }
            _ => {
                self.find_once(Grade::Unknown, start, "it sets the state of what has none");
                Ok(())
            }
        }
    }
}
