//! The counted holders of images that are free again. The next image of a log in memory takes one,
//! so that it allocates nothing.

use std::sync::Arc;

use super::table::{PinCount, SegmentBytes};
use crate::image::Image;

/// Holders without an image.
#[derive(Debug, Default)]
pub(crate) struct SpareHolders(Vec<Arc<SegmentBytes>>);

impl SpareHolders {
    /// Lets go of the image of a holder, and keeps the holder. A holder that a reader still has is
    /// not kept.
    pub(crate) fn keep(&mut self, mut holder: Arc<SegmentBytes>) {
        if let Some(bytes) = Arc::get_mut(&mut holder) {
            *bytes = SegmentBytes::Spare;
            self.0.push(holder);
        }
    }

    /// A holder of `image`: a spare one, or else a new one.
    pub(crate) fn hold(&mut self, image: &Arc<Image>, pins: PinCount) -> Arc<SegmentBytes> {
        let image = SegmentBytes::Image(Arc::clone(image), pins);
        if let Some(mut holder) = self.0.pop()
            && let Some(bytes) = Arc::get_mut(&mut holder)
        {
            *bytes = image;
            return holder;
        }
        Arc::new(image)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_holder_is_used_again_and_lets_go_of_its_image_meanwhile_unless_a_reader_has_it() {
        let image = Arc::new(Image::new(4096).unwrap());
        let mut spares = SpareHolders::default();
        let holder = spares.hold(&image, PinCount::default());
        let address = Arc::as_ptr(&holder);
        assert_eq!(Arc::strong_count(&image), 2);
        spares.keep(holder);
        assert_eq!(Arc::strong_count(&image), 1, "the image can be begun again");
        let holder = spares.hold(&image, PinCount::default());
        assert_eq!(Arc::as_ptr(&holder), address);
        let reader = Arc::clone(&holder);
        spares.keep(holder);
        assert_ne!(Arc::as_ptr(&spares.hold(&image, PinCount::default())), address);
        assert!(matches!(*reader, SegmentBytes::Image(..)), "what a reader has stays");
    }
}
