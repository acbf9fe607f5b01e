//! The keys, or pairs of key and value, of one command: all of them, or those of one slot.

/// Some items of a list, without a copy of them.
#[derive(Clone)]
pub(crate) struct Batch<'a, T> {
    items: &'a [T],
    /// The positions of the selected items; `None` selects all.
    selected: Option<Vec<usize>>,
}

impl<'a, T> Batch<'a, T> {
    /// All of these items.
    pub(crate) fn all(items: &'a [T]) -> Self {
        Self {
            items,
            selected: None,
        }
    }

    /// The items at these positions, which count within this batch.
    pub(crate) fn select(&self, positions: &[usize]) -> Self {
        let selected = match &self.selected {
            None => positions.to_vec(),
            Some(selected) => {
                let nested = positions.iter().filter_map(|at| selected.get(*at));
                nested.copied().collect()
            }
        };
        Self {
            items: self.items,
            selected: Some(selected),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.selected.as_ref().map_or(self.items.len(), Vec::len)
    }

    /// The selected items, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a T> {
        let (all, some) = match &self.selected {
            None => (self.items, &[][..]),
            Some(selected) => (&[][..], selected.as_slice()),
        };
        let items = self.items;
        all.iter()
            .chain(some.iter().filter_map(move |at| items.get(*at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_nest_and_keep_their_order() {
        let items = ["a", "b", "c", "d"];
        let all = Batch::all(&items);
        assert_eq!(all.len(), 4);
        let some = all.select(&[3, 0, 2]);
        assert_eq!(some.iter().collect::<Vec<_>>(), [&"d", &"a", &"c"]);
        let nested = some.select(&[2, 0]);
        assert_eq!(nested.iter().collect::<Vec<_>>(), [&"c", &"d"]);
        assert_eq!(nested.len(), 2);
    }
}
