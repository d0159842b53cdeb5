//! The stored form of a revision tree.
//!
//! Nodes follow each other, oldest first, until the bytes end. Each is
//! - a byte of flags: 1 leaf, 2 deleted, 4 attached, 8 a hash that isn't sixteen bytes, and times 16 where its parents are
//!   (0 unknown, 1 the node before, 2 elsewhere, 3 several);
//! - unknown: its generation, less that of the node before; elsewhere: how many nodes before; several: how many
//!   besides the greatest, and how many nodes before that one and each of the others is;
//! - its hash: sixteen bytes, or a length and text;
//! - for a leaf: update seq of its body.
//!
//! Numbers are [`varint`]s. An ordinary ancestor takes 17 bytes, a document of one revision 20 to 25.

use crate::document::{Rev, RevHash};

use super::{NewLeaf, Node, RevTree};
use crate::store::{StoreError, varint};

const LEAF: u8 = 1;
const DELETED: u8 = 2;
const ATTACHED: u8 = 4;
const OTHER_HASH: u8 = 8;

const ROOT: u8 = 0;
const CHILD_OF_LAST: u8 = 1;
const CHILD: u8 = 2;
const CHILD_OF_SEVERAL: u8 = 3;
const PARENTS_SHIFT: u32 = 4;

const CUT: StoreError = StoreError::Damaged("revision tree: cut short");
const NUMBER: StoreError = StoreError::Damaged("revision tree: number");
const PARENTS: StoreError = StoreError::Damaged("revision tree: parents");

impl RevTree {
    /// Reads what [`RevTree::encode`] wrote.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the bytes are no tree. Takes no more memory than a few times the bytes' length.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        const SMALLEST_NODE: usize = 17;
        let mut tree = Self { nodes: Vec::with_capacity(bytes.len() / SMALLEST_NODE), extra: Vec::new() };
        let mut input = Input(bytes);
        while !input.0.is_empty() {
            tree.decode_node(&mut input)?;
        }
        Ok(tree)
    }

    /// Appends the tree's stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut before = 0;
        for (index, node) in self.nodes.iter().enumerate() {
            self.encode_node(index, before, out);
            before = node.rev.pos;
        }
    }

    fn encode_node(&self, index: usize, before: u64, out: &mut Vec<u8>) {
        let node = &self.nodes[index];
        let lesser = self.parents(index).count().saturating_sub(1) as u64;
        let distance = node.parent.map(|parent| (index - parent as usize) as u64);
        let parents = match distance {
            None => ROOT,
            Some(_) if lesser > 0 => CHILD_OF_SEVERAL,
            Some(1) => CHILD_OF_LAST,
            Some(_) => CHILD,
        };
        out.push(flags(node) | parents << PARENTS_SHIFT);
        match parents {
            ROOT => varint::put(out, node.rev.pos - before),
            CHILD_OF_SEVERAL => varint::put(out, lesser),
            _ => {}
        }
        if matches!(parents, CHILD | CHILD_OF_SEVERAL) {
            self.parents(index).for_each(|parent| varint::put(out, (index - parent) as u64));
        }
        if let RevHash::Other(text) = &node.rev.hash {
            varint::put(out, text.len() as u64);
        }
        out.extend_from_slice(node.rev.hash.as_bytes());
        if let Some(leaf) = &node.leaf {
            varint::put(out, leaf.body);
        }
    }

    fn decode_node(&mut self, input: &mut Input<'_>) -> Result<(), StoreError> {
        let flags = input.take(1)?[0];
        let before = self.nodes.last().map_or(0, |node| node.rev.pos);
        let (parent, pos) = match flags >> PARENTS_SHIFT {
            ROOT => (None, before.checked_add(input.number()?).filter(|&pos| pos > 0).ok_or(PARENTS)?),
            CHILD_OF_LAST => self.decoded_parent(1)?,
            CHILD => self.decoded_parent(input.number()?)?,
            CHILD_OF_SEVERAL => self.decode_parents(input)?,
            _ => return Err(StoreError::Damaged("revision tree: unknown flags")),
        };
        let hash = match flags & OTHER_HASH {
            0 => RevHash::Md5(*input.take(16)?.as_array().ok_or(CUT)?),
            _ => input.text()?,
        };
        let leaf = match flags & LEAF {
            0 => None,
            _ => {
                Some(NewLeaf { deleted: flags & DELETED != 0, attached: flags & ATTACHED != 0, body: input.number()? })
            }
        };
        let node = Node { rev: Rev { pos, hash }, parent, leaf };
        if self.nodes.last().is_some_and(|last| last.rev >= node.rev) {
            return Err(StoreError::Damaged("revision tree: out of order"));
        }
        self.nodes.push(node);
        Ok(())
    }

    /// Several parents of the node that is read next: those besides the greatest go to `extra`.
    fn decode_parents(&mut self, input: &mut Input<'_>) -> Result<(Option<u32>, u64), StoreError> {
        let child = self.nodes.len() as u32;
        let lesser = input.number()?;
        let greatest = self.decoded_parent(input.number()?)?;
        let mut last = None;
        for _ in 0..lesser {
            let next = self.decoded_parent(input.number()?)?;
            if next.0 <= last || next.0 >= greatest.0 || next.1 != greatest.1 {
                return Err(PARENTS);
            }
            self.extra.extend(next.0.map(|parent| (child, parent)));
            last = next.0;
        }
        Ok(greatest)
    }

    /// The place of a parent of the node that is read next, and that node's generation.
    fn decoded_parent(&self, distance: u64) -> Result<(Option<u32>, u64), StoreError> {
        let place = (self.nodes.len() as u64).checked_sub(distance).ok_or(PARENTS)?;
        let parent = self.nodes.get(place as usize).filter(|parent| parent.leaf.is_none()).ok_or(PARENTS)?;
        Ok((Some(place as u32), parent.rev.pos.checked_add(1).ok_or(PARENTS)?))
    }
}

fn flags(node: &Node) -> u8 {
    let other_hash = matches!(node.rev.hash, RevHash::Other(_));
    let (leaf, deleted, attached) = node.leaf.map_or((false, false, false), |leaf| (true, leaf.deleted, leaf.attached));
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    flag(leaf, LEAF) | flag(deleted, DELETED) | flag(attached, ATTACHED) | flag(other_hash, OTHER_HASH)
}

/// The bytes that are still to be read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        varint::take(&mut self.0).ok_or(NUMBER)
    }

    /// A hash that isn't sixteen bytes.
    fn text(&mut self) -> Result<RevHash, StoreError> {
        let length = self.number()?;
        let text = std::str::from_utf8(self.take(length as usize)?).ok();
        match text.map(RevHash::from) {
            Some(hash @ RevHash::Other(_)) => Ok(hash),
            _ => Err(StoreError::Damaged("revision tree: hash")),
        }
    }
}
