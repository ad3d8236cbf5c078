//! Targets that are taken out of their stored form one by one.
//!
//! Most runs want one target of thousands in full, and of the others only names and needs.
//! So those lie apart, and the rest of a target is decoded on demand.

use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;

use super::{Command, Target, TargetId};

/// All targets of a graph.
#[derive(Clone, Debug, Default)]
pub(super) struct TargetTable {
    taken: Vec<OnceLock<Box<Target>>>,
    /// The stored form, where there is one.
    stored: EncodedTargets,
    index: OnceLock<(DefaultHashBuilder, HashTable<TargetId>)>,
}

/// Texts or lists, one behind the other, with the end of each.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct EncodedTargets {
    names: String,
    name_ends: Vec<u32>,
    needs: Vec<TargetId>,
    need_ends: Vec<u32>,
    /// Targets without commands, sorted.
    groups: Vec<TargetId>,
    targets: Arc<ByteBuf>,
    target_ends: Vec<u32>,
}

fn part(ends: &[u32], i: usize) -> std::ops::Range<usize> {
    let start = match i {
        0 => 0,
        i => ends[i - 1],
    };
    start as usize..ends[i] as usize
}

impl TargetTable {
    /// Returns a table of targets that are all there.
    pub fn new(targets: Vec<Target>) -> Self {
        let mut stored = EncodedTargets::default();
        for (i, target) in targets.iter().enumerate() {
            if target.run.is_empty() {
                stored.groups.push(TargetId(i as u32));
            }
            stored.names += &target.name;
            stored.name_ends.push(stored.names.len() as u32);
            stored.needs.extend(&target.needs);
            stored.need_ends.push(stored.needs.len() as u32);
        }
        let taken = targets.into_iter().map(|t| OnceLock::from(Box::new(t)));
        Self {
            taken: taken.collect(),
            stored,
            index: OnceLock::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.taken.len()
    }

    pub fn name(&self, id: TargetId) -> &str {
        &self.stored.names[part(&self.stored.name_ends, id.index())]
    }

    pub fn needs(&self, id: TargetId) -> &[TargetId] {
        &self.stored.needs[part(&self.stored.need_ends, id.index())]
    }

    pub fn groups(&self) -> &[TargetId] {
        &self.stored.groups
    }

    pub fn target(&self, id: TargetId) -> &Target {
        self.taken[id.index()].get_or_init(|| {
            let bytes = &self.stored.targets[part(&self.stored.target_ends, id.index())];
            // The checksum over all was compared, and the same program wrote it.
            let target = postcard::from_bytes(bytes);
            Box::new(target.unwrap_or_else(|_| self.unreadable(id)))
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        (0..self.len()).map(|i| self.target(TargetId(i as u32)))
    }

    pub fn find(&self, name: &str) -> Option<TargetId> {
        let (hasher, ids) = self.index.get_or_init(|| {
            let hasher = DefaultHashBuilder::default();
            let mut ids = HashTable::with_capacity(self.len());
            for i in 0..self.len() {
                let id = TargetId(i as u32);
                let hash = hasher.hash_one(self.name(id));
                ids.insert_unique(hash, id, |id| hasher.hash_one(self.name(*id)));
            }
            (hasher, ids)
        });
        let is_it = |id: &TargetId| self.name(*id) == name;
        ids.find(hasher.hash_one(name), is_it).copied()
    }

    /// A target that is never fresh and always fails stands for one that cannot be read:
    /// nothing else would be true of it.
    fn unreadable(&self, id: TargetId) -> Target {
        Target {
            name: self.name(id).to_owned(),
            base: self.name(id).to_owned(),
            needs: self.needs(id).to_vec(),
            run: vec![Command::Argv(Vec::new())],
            ..Target::default()
        }
    }
}

impl PartialEq for TargetTable {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for TargetTable {}

impl Serialize for TargetTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut stored = self.stored.clone();
        let mut bytes = Vec::new();
        stored.target_ends.clear();
        for target in self.iter() {
            bytes.extend(postcard::to_stdvec(target).map_err(serde::ser::Error::custom)?);
            stored.target_ends.push(bytes.len() as u32);
        }
        stored.targets = Arc::new(ByteBuf::from(bytes));
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TargetTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = EncodedTargets::deserialize(deserializer)?;
        let count = stored.name_ends.len();
        if stored.need_ends.len() != count || stored.target_ends.len() != count {
            return Err(serde::de::Error::custom("lists of different lengths"));
        }
        let mut taken = Vec::new();
        taken.resize_with(count, OnceLock::new);
        Ok(Self {
            taken,
            stored,
            index: OnceLock::new(),
        })
    }
}
