//! Going through a tree in the order of its keys.

use super::DEPTH_MAX;
use super::page::{Element, Page, bad};
use super::read::{Bolt, Pages, Tree, Used};
use crate::error::Result;

/// A place in a tree. Keys must rise from one leaf to the next, so that it ends whatever a file says.
pub struct Cursor<'b, P> {
    bolt: &'b Bolt<P>,
    begin: Option<Tree>,
    /// The pages from the root to the leaf, and the next element of each.
    stack: Vec<(Page, usize)>,
    used: Option<&'b mut Used>,
    last: Option<Vec<u8>>,
}

impl<'b, P: Pages> Cursor<'b, P> {
    pub(super) fn new(bolt: &'b Bolt<P>, tree: &Tree, used: Option<&'b mut Used>) -> Cursor<'b, P> {
        Cursor { bolt, begin: Some(tree.clone()), stack: Vec::new(), used, last: None }
    }

    fn enter(&mut self, id: u64) -> Result<()> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(bad(id, "a tree is too deep"));
        }
        let (page, span) = self.bolt.page(id)?;
        if let Some(used) = &mut self.used {
            used.mark(id, span)?;
        }
        if page.is_leaf() && page.count() == 0 && !self.stack.is_empty() {
            return Err(bad(id, "an empty leaf"));
        }
        if page.is_leaf() && page.count() > 0 {
            if self.last.as_deref().is_some_and(|last| page.key(0).is_ok_and(|first| first <= last)) {
                return Err(bad(id, "keys are out of order"));
            }
            self.last = Some(page.key(page.count() - 1)?.to_vec());
        }
        self.stack.push((page, 0));
        Ok(())
    }

    /// The next element.
    ///
    /// # Errors
    /// A page is not sound.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Element<'_>>> {
        match self.begin.take() {
            Some(Tree::Root(id)) => self.enter(id)?,
            Some(Tree::Inline(bytes)) => {
                let page = Page::parse(0, bytes)?;
                if !page.is_leaf() {
                    return Err(bad(0, "a branch where a leaf should be"));
                }
                self.stack.push((page, 0));
            }
            None => {}
        }
        loop {
            let Some((page, at)) = self.stack.last_mut() else { return Ok(None) };
            if *at >= page.count() {
                self.stack.pop();
                continue;
            }
            *at += 1;
            if page.is_leaf() {
                break;
            }
            let child = page.child(*at - 1)?;
            self.enter(child)?;
        }
        match self.stack.last() {
            Some((page, at)) => page.element(at.saturating_sub(1)).map(Some),
            None => Ok(None),
        }
    }
}
