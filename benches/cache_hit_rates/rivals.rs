//! A plain LRU, and the best that any cache could do.

use std::collections::{BinaryHeap, HashMap};

/// Hits of an LRU of each size, all in one pass: a get hits where fewer different keys than the size were read since
/// the last get of its key (Mattson and others, 1970).
pub(crate) fn hits_of_lru(gets: &[u32], sizes: &[usize]) -> Vec<usize> {
    // A tree of sums over the gets; 1 at the last get of each key.
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
            // The key itself included.
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

/// For each get, which is the next one of its key; `None` where there is none.
pub(crate) fn next_uses(gets: &[u32]) -> Vec<Option<usize>> {
    let (mut next, mut seen) = (vec![None; gets.len()], HashMap::new());
    for (at, key) in gets.iter().enumerate().rev() {
        next[at] = seen.insert(key, at);
    }
    next
}

/// Hits of a cache that knows the future (Belady, 1966): it keeps the keys that are read again soonest, and does not
/// take in what is read again later than all that it has.
pub(crate) fn hits_of_best(next: &[Option<usize>], size: usize) -> usize {
    // What is kept is known by when it is read next.
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
            // Those that are over are behind all that are to come.
            kept[by_next.pop().unwrap()] = false;
            count -= 1;
        }
    }
    hits
}
