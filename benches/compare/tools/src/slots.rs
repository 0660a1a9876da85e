//! Connections by number, numbers being used again.
//!
//! An event for a connection that is gone may meet its successor. That does
//! no harm: whoever is driven without need finds nothing to do.

#[derive(Debug)]
pub struct Slots<T> {
    all: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    pub fn insert(&mut self, value: T) -> usize {
        match self.free.pop() {
            Some(slot) => {
                self.all[slot] = Some(value);
                slot
            }
            None => {
                self.all.push(Some(value));
                self.all.len() - 1
            }
        }
    }

    pub fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.all.get_mut(slot)?.as_mut()
    }

    pub fn remove(&mut self, slot: usize) -> Option<T> {
        let value = self.all.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(value)
    }
}
