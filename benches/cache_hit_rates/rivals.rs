//! A plain LRU, and the best that any cache could do.

use std::collections::{BinaryHeap, HashMap};

/// Number of hits of an LRU of each size, all in one pass (Mattson and others, 1970). A get hits if
/// fewer different keys than the size were read since the last get of its key.
pub(crate) fn hits_of_lru(gets: &[u32], sizes: &[usize]) -> Vec<usize> {
    // A tree of sums over the gets; it holds 1 at the last get of each key.
    let mut sums = vec![0_u32; gets.len() + 1];
    let add = |sums: &mut [u32], at: usize, value: u32| {
        let mut at = at + 1;
        while at < sums.len() {
            sums[at] = sums[at].wrapping_add(value);
            at += at & at.wrapping_neg();
        }
    };
    let before = |sums: &[u32], end: usize| {
        let (mut at, mut sum) = (end, 0_u32);
        while at > 0 {
            sum = sum.wrapping_add(sums[at]);
            at &= at - 1;
        }
        sum as usize
    };
    let (mut last, mut hits) = (HashMap::new(), vec![0; sizes.len()]);
    for (at, key) in gets.iter().enumerate() {
        if let Some(earlier) = last.insert(key, at) {
            // The distance includes the key itself.
            let distance = before(&sums, at) - before(&sums, earlier);
            for (hits, size) in hits.iter_mut().zip(sizes) {
                *hits += usize::from(distance <= *size);
            }
            add(&mut sums, earlier, 1_u32.wrapping_neg());
        }
        add(&mut sums, at, 1);
    }
    hits
}

/// For each get, the number of the next get of its key; `None` for the last one.
pub(crate) fn next_uses(gets: &[u32]) -> Vec<Option<usize>> {
    let (mut next, mut seen) = (vec![None; gets.len()], HashMap::new());
    for (at, key) in gets.iter().enumerate().rev() {
        next[at] = seen.insert(key, at);
    }
    next
}

/// Number of hits of a cache that knows the future (Belady, 1966). It keeps the keys that are read
/// again soonest, and does not take in a key that is read later than all of these.
pub(crate) fn hits_of_best(next: &[Option<usize>], size: usize) -> usize {
    // The kept keys are sorted by their next get.
    let (mut kept, mut by_next) = (vec![false; next.len()], BinaryHeap::new());
    let (mut count, mut hits) = (0, 0);
    for (at, next) in next.iter().enumerate() {
        if kept[at] {
            hits += 1;
            count -= 1;
        }
        let Some(next) = *next else { continue };
        kept[next] = true;
        by_next.push(next);
        count += 1;
        if count > size {
            // Keys whose last get is over come behind all future ones.
            kept[by_next.pop().unwrap()] = false;
            count -= 1;
        }
    }
    hits
}
