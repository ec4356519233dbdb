"""Star, galaxy or quasar; lenses; morphology; redshifts: from stamps and photometry, with calibrated probabilities."""
