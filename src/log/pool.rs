//! The images of a journal: their maximum, and which are free.

use std::io;
use std::sync::Arc;

use crate::image::{Image, ImageWriter};
use crate::numbers::SegmentNumber;
use crate::sync::{Mutex, Rank};

/// A fixed number of images of one size, and a budget for larger ones.
///
/// An image is free again when the pool holds the only reference. Workers, writes in flight,
/// readers and values each hold one.
#[derive(Debug)]
pub(crate) struct ImagePool {
    image_bytes: usize,
    images_max: usize,
    /// Bytes that images above the usual size may take together.
    oversize_bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Every image of the usual size, in use or not.
    images: Vec<Arc<Image>>,
    oversize: Vec<Arc<Image>>,
}

impl ImagePool {
    pub(crate) fn new(image_bytes: usize, images_max: usize, oversize_bytes_max: usize) -> Self {
        let state = State { images: Vec::with_capacity(images_max), oversize: Vec::new() };
        Self { image_bytes, images_max, oversize_bytes_max, state: Mutex::new(Rank::Images, state) }
    }

    /// The usual size of an image, in bytes.
    pub(crate) fn image_bytes(&self) -> usize {
        self.image_bytes
    }

    /// The most bytes that fit into one image of any size.
    pub(crate) fn largest(&self) -> usize {
        self.image_bytes.max(self.oversize_bytes_max)
    }

    /// The most bytes that the pool takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.image_bytes * self.images_max + self.oversize_bytes_max
    }

    /// Begins `segment` in a free image with room for `needed` bytes; `None` if all are in use.
    pub(crate) fn begin(
        &self,
        segment: SegmentNumber,
        needed: usize,
        content: &[u8],
    ) -> io::Result<Option<ImageWriter>> {
        let mut state = self.state.lock();
        if needed > self.image_bytes {
            return self.begin_oversize(&mut state, segment, needed, content);
        }
        let free = state.images.iter().position(|image| Arc::strong_count(image) == 1);
        let image = match free {
            Some(at) => state.images.swap_remove(at),
            None if state.images.len() < self.images_max => Arc::new(Image::new(self.image_bytes)?),
            None => return Ok(None),
        };
        let writer = Image::begin(image, segment, content);
        if let Some(writer) = &writer {
            state.images.push(Arc::clone(writer.image()));
        }
        Ok(writer)
    }

    fn begin_oversize(
        &self,
        state: &mut State,
        segment: SegmentNumber,
        needed: usize,
        content: &[u8],
    ) -> io::Result<Option<ImageWriter>> {
        state.oversize.retain(|image| Arc::strong_count(image) > 1);
        let taken: usize = state.oversize.iter().map(|image| image.capacity()).sum();
        // A sum that saturates is over the budget.
        if taken.saturating_add(needed) > self.oversize_bytes_max {
            return Ok(None);
        }
        let writer = Image::begin(Arc::new(Image::new(needed)?), segment, content);
        if let Some(writer) = &writer {
            state.oversize.push(Arc::clone(writer.image()));
        }
        Ok(writer)
    }

    /// Makes one more image, with its pages, if none is free and the limit allows it. The
    /// background calls it, off the appender's path.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let spare = state.images.iter().any(|image| Arc::strong_count(image) == 1);
        if spare || state.images.len() >= self.images_max {
            return Ok(());
        }
        drop(state);
        let image = Arc::new(Image::new(self.image_bytes)?);
        image.populate();
        state = self.state.lock();
        if state.images.len() < self.images_max {
            state.images.push(image);
        }
        Ok(())
    }
}
