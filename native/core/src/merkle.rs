//! Merkle trees over the rows of a code word, and pruned multi-openings.
//!
//! Leaf `i` is the row of the point `shift omega^i`. A multi-opening at sorted distinct leaves holds exactly the siblings that a merge needs
//! which goes from the leaves upwards and, on each height, from left to right: a node whose sibling is known too needs none. Their number
//! follows from the indices alone.

use rayon::prelude::*;

use crate::hash::{BLOCK, Digest, Key, hash_blocks};

/// `log2` of the nodes of the largest level that is kept. Below it are seven eighths of a large tree's memory, and an opening hashes the few
/// leaves again that it needs from there.
const KEPT_LOG: usize = 17;

/// The levels of a tree from some height on, the root last.
pub struct Tree {
    /// Of the first level that is kept.
    height: usize,
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// Builds the tree over `leaves`, whose number is a power of two.
    pub fn new(leaves: Vec<Digest>) -> Tree {
        Self::keeping(leaves, KEPT_LOG)
    }

    /// [`Self::new`] without the levels of more than `2^kept_log` nodes.
    fn keeping(leaves: Vec<Digest>, kept_log: usize) -> Tree {
        let height = (leaves.len().trailing_zeros() as usize).saturating_sub(kept_log);
        let mut last = leaves;
        let mut levels = Vec::new();
        for below in 0.. {
            let next = (last.len() > 1).then(|| parents(&last, below + 1));
            if below >= height {
                levels.push(last);
            }
            match next {
                Some(next) => last = next,
                None => break,
            }
        }
        Tree { height, levels }
    }

    /// The root.
    pub fn root(&self) -> Digest {
        self.levels[self.levels.len() - 1][0]
    }

    /// The siblings that the multi-opening at `leaves` (sorted, distinct) needs, in order. `leaf` gives leaves again.
    pub fn siblings(&self, leaves: &[usize], leaf: impl Fn(usize) -> Digest) -> Vec<Digest> {
        let mut out = Vec::new();
        let mut nodes = leaves.to_vec();
        for height in 0..self.height + self.levels.len() - 1 {
            out.extend(lone(&nodes).map(|i| self.node(height, i ^ 1, &leaf)));
            climb(&mut nodes);
        }
        out
    }

    fn node(&self, height: usize, i: usize, leaf: &impl Fn(usize) -> Digest) -> Digest {
        if height >= self.height {
            return self.levels[height - self.height][i];
        }
        let leaves: Vec<Digest> = (i << height..(i + 1) << height).map(leaf).collect();
        (1..=height).fold(leaves, |nodes, height| parents(&nodes, height))[0]
    }
}

/// The level of the given height above `nodes`.
fn parents(nodes: &[Digest], height: usize) -> Vec<Digest> {
    const RUN: usize = 1 << 10;
    let key = Key::node(height);
    let mut out = vec![[0; 32]; nodes.len() / 2];
    out.par_chunks_mut(RUN).zip(nodes.par_chunks(2 * RUN)).for_each(|(out, pairs)| hash_blocks(&key, 1, pairs.as_flattened(), out));
    out
}

/// The nodes of a sorted list whose sibling is not in it.
fn lone(nodes: &[usize]) -> impl Iterator<Item = usize> + '_ {
    (0..nodes.len())
        .filter(|&k| {
            let sibling = nodes[k] ^ 1;
            !(k > 0 && nodes[k - 1] == sibling || k + 1 < nodes.len() && nodes[k + 1] == sibling)
        })
        .map(|k| nodes[k])
}

/// The parents of a sorted list of nodes.
fn climb(nodes: &mut Vec<usize>) {
    for i in nodes.iter_mut() {
        *i >>= 1;
    }
    nodes.dedup();
}

/// How many siblings a multi-opening at `leaves` (sorted, distinct, below `2^height`) has.
pub fn sibling_count(leaves: &[usize], height: usize) -> usize {
    let mut nodes = leaves.to_vec();
    let mut count = 0;
    for _ in 0..height {
        count += lone(&nodes).count();
        climb(&mut nodes);
    }
    count
}

/// The root that the given leaves and siblings hash to; `None` unless there are exactly [`sibling_count`] siblings and one digest per leaf.
pub fn root_of(leaves: &[usize], digests: Vec<Digest>, siblings: &[Digest], height: usize) -> Option<Digest> {
    let (mut nodes, mut level) = (leaves.to_vec(), digests);
    let mut siblings = siblings.iter();
    if nodes.len() != level.len() {
        return None;
    }
    for h in 1..=height {
        let mut pairs: Vec<u8> = Vec::with_capacity(level.len() * BLOCK);
        let mut k = 0;
        while k < nodes.len() {
            if nodes[k] & 1 == 1 {
                pairs.extend_from_slice(siblings.next()?);
                pairs.extend_from_slice(&level[k]);
            } else {
                pairs.extend_from_slice(&level[k]);
                if nodes.get(k + 1) == Some(&(nodes[k] ^ 1)) {
                    k += 1;
                    pairs.extend_from_slice(&level[k]);
                } else {
                    pairs.extend_from_slice(siblings.next()?);
                }
            }
            k += 1;
        }
        climb(&mut nodes);
        level = vec![[0; 32]; nodes.len()];
        hash_blocks(&Key::node(h), 1, &pairs, &mut level);
    }
    match (level.as_slice(), siblings.next()) {
        ([root], None) => Some(*root),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(height: usize, left: &Digest, right: &Digest) -> Digest {
        *blake3::Hasher::new_keyed(Key::node(height).bytes()).update(left).update(right).finalize().as_bytes()
    }

    fn leaves(log: usize) -> Vec<Digest> {
        (0..1usize << log).map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect()
    }

    proptest! {
        #[test]
        fn openings_lead_to_the_root(log in 0usize..8, kept in 0usize..9, picks in prop::collection::vec(any::<prop::sample::Index>(), 1..40), flip: prop::sample::Index) {
            let all = leaves(log);
            let tree = Tree::keeping(all.clone(), kept);
            prop_assert_eq!(tree.levels.iter().map(Vec::len).max(), Some(1 << kept.min(log)));
            let mut at: Vec<usize> = picks.iter().map(|p| p.index(all.len())).collect();
            at.sort_unstable();
            at.dedup();
            let opened: Vec<Digest> = at.iter().map(|&i| all[i]).collect();
            let siblings = tree.siblings(&at, |i| all[i]);
            prop_assert_eq!(siblings.len(), sibling_count(&at, log));
            prop_assert_eq!(root_of(&at, opened.clone(), &siblings, log), Some(tree.root()));
            let mut other = opened.clone();
            other[flip.index(opened.len())][0] ^= 1;
            prop_assert_ne!(root_of(&at, other, &siblings, log), Some(tree.root()));
            let mut more = siblings.clone();
            more.push([0; 32]);
            prop_assert_eq!(root_of(&at, opened.clone(), &more, log), None);
            if !siblings.is_empty() {
                let mut other = siblings.clone();
                other[flip.index(siblings.len())][31] ^= 128;
                prop_assert_ne!(root_of(&at, opened.clone(), &other, log), Some(tree.root()));
                prop_assert_eq!(root_of(&at, opened, &siblings[1..], log), None);
            }
        }
    }

    #[test]
    fn the_order_of_siblings_is_bottom_up_and_left_to_right() {
        let l = leaves(3);
        let at = [1, 4, 5];
        let n = [node(1, &l[0], &l[1]), node(1, &l[2], &l[3]), node(1, &l[4], &l[5]), node(1, &l[6], &l[7])];
        let tree = Tree::new(l.clone());
        assert_eq!(tree.siblings(&at, |i| l[i]), [l[0], n[1], n[3]]);
        assert_eq!(tree.root(), node(3, &node(2, &n[0], &n[1]), &node(2, &n[2], &n[3])));
    }
}
