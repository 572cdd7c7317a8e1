//! What a pickle loads by name, and calls.

use super::super::bytes::{Bytes, Stop};
use super::super::names::{Known, Shape, judge};
use super::super::numpy::{is_sound, made};
use super::super::opcodes as op;
use super::super::value::{VALUES_MAX, Value, has_class, is_name};
use super::{CLASS_KEPT, FORGED_DTYPE, LINE_MAX, Machine, NAME_MAX, counted};
use crate::model::verdict::{Finding, Grade, cut};
use std::rc::Rc;

impl Machine<'_> {
    /// Opcodes that load names and call.
    pub(super) fn names(&mut self, code: u8, bytes: &mut Bytes<'_>, start: u64) -> Result<bool, Stop> {
        match code {
            op::GLOBAL => {
                let known = self.named_by_lines(bytes, start)?;
                self.push(Value::Global(known.shape))?;
            }
            op::INST => {
                let known = self.named_by_lines(bytes, start)?;
                self.gathered(start)?;
                self.call(Some(Value::Global(known.shape)), &Value::Plain, start)?;
            }
            op::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let known = self.named_by_values(&module, &name, start);
                self.push(Value::Global(known.shape))?;
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
            op::REDUCE | op::NEWOBJ => {
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

    fn named_by_lines(&mut self, bytes: &mut Bytes<'_>, start: u64) -> Result<Known, Stop> {
        let (module, name) = (bytes.name(LINE_MAX)?, bytes.name(LINE_MAX)?);
        let known = self.named(&module, &name, start);
        // A module is loaded, and so runs, before anything is looked up in it.
        self.loads |= known.grade != Grade::Safe && module.split('.').next().is_some_and(is_name);
        // Loading a module of a package runs it; two words on two lines are found in any list of words.
        self.acted |= known.grade != Grade::Safe && module.contains('.') && is_name(&module) && is_name(&name);
        Ok(known)
    }

    fn named_by_values(&mut self, module: &Value, name: &Value, start: u64) -> Known {
        if let (Value::Text(module), Value::Text(name)) = (module, name) {
            let known = self.named(module, name, start);
            self.acted |= known.grade != Grade::Safe;
            return known;
        }
        let computed = matches!(module, Value::Made(_)) || matches!(name, Value::Made(_));
        let why = if computed { "it loads a name that it computes" } else { "it loads what can be no name" };
        self.acted = true;
        // What is computed hides itself, which nothing harmless does.
        let grade = if computed { Grade::Unsafe } else { Grade::Unknown };
        self.find(grade, start, why);
        Known { grade, shape: Shape::Other, why }
    }

    fn named(&mut self, module: &str, name: &str, start: u64) -> Known {
        let known = judge(module, name);
        if known.grade == Grade::Safe {
            return known;
        }
        self.acted |= known.grade == Grade::Unsafe;
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
        known
    }

    /// Of two bytes of numbers three in 256 look like this; what is done with it acts.
    fn extension(&mut self, code: u64, start: u64) -> Result<(), Stop> {
        self.find_once(Grade::Unknown, start, &format!("it loads by number, {code}, from a registry that is not here"));
        self.push(Value::Global(Shape::Other))
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
            Some(Value::Global(Shape::DtypeClass)) if matches!(given, Value::Tuple(_)) && !has_class(given) => {
                Value::Made(made(given))
            }
            Some(Value::Global(shape)) => {
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
            Value::Global(_) => {
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
