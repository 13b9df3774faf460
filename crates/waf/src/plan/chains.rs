//! Lists of transformations as one tree of shared beginnings: what two rules do alike is done once per value.

use crate::transform::Transformation;

/// A list of transformations: a node of the tree. Zero is the empty list.
pub(crate) type ChainId = u16;

/// The tree.
#[derive(Debug)]
pub(crate) struct Chains {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    parent: ChainId,
    transformation: Transformation,
}

impl Chains {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node { parent: 0, transformation: Transformation::None }] }
    }

    /// The node of a list, made if it is new. None when there are more lists than rules can sensibly have.
    pub(crate) fn add(&mut self, list: &[Transformation]) -> Option<ChainId> {
        let mut at: ChainId = 0;
        for transformation in list {
            if *transformation == Transformation::None {
                continue;
            }
            let found = self
                .nodes
                .iter()
                .skip(1)
                .position(|node| node.parent == at && node.transformation == *transformation);
            at = match found {
                Some(index) => ChainId::try_from(index + 1).ok()?,
                None => {
                    self.nodes.push(Node { parent: at, transformation: *transformation });
                    ChainId::try_from(self.nodes.len() - 1).ok()?
                }
            };
        }
        Some(at)
    }

    pub(crate) fn parent(&self, chain: ChainId) -> ChainId {
        self.nodes[usize::from(chain)].parent
    }

    pub(crate) fn transformation(&self, chain: ChainId) -> Transformation {
        self.nodes[usize::from(chain)].transformation
    }

    /// The transformations of a list, first to last.
    pub(crate) fn list(&self, mut chain: ChainId) -> Vec<Transformation> {
        let mut out = Vec::new();
        while chain != 0 {
            out.push(self.transformation(chain));
            chain = self.parent(chain);
        }
        out.reverse();
        out
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }
}
