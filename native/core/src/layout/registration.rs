//! What a private model proves once (design section 7, "Committed weights of a model one has not seen"): its committed weights and biases
//! are what the lines and tables of its public program assume of them.
//!
//! A weight `w` and its positive part `w+` are a row of RELU, so that `w` is int8. With inputs (zero point subtracted) in `[l, h]`,
//! `l <= 0 <= h`, and `S`, `S+` the sums of a channel's `w` and `w+`, its extreme accumulators are
//!
//! ```text
//! top    = bias + sum over w > 0 of h w + sum over w < 0 of l w = bias + (h - l) S+ + l S
//! bottom = bias + sum over w > 0 of l w + sum over w < 0 of h w = bias + h S - (h - l) S+
//! ```
//!
//! The last two are taken for the value with and without the zero point `z`: `V + min(z, 0)` stands above, `V - max(z, 0)` below.
//! A tap in the padding adds 0, which lies between. Every channel shows that these are not negative:
//!
//! ```text
//! bias + 2^31,   (D - 1) - top,   bottom + (D - 1)             D = 2^(31 - shift), shift = max(-e, 0): no int32 overflows
//! d V - 1 - (a top + max b),   a bottom + min b + d V          the value before the clamp lies in [-V, V)
//! ```
//!
//! *No slack at the top.* Each is shown to lie in `[0, 2^(w limbs))`, which may be more than the true maximum. Only "not negative" is
//! needed: `bottom <= bias <= top` bounds each side by the other. What the wider range must not do is wrap: by the first check `bias` is an
//! integer below `2^(w limbs)` in magnitude, by RELU the sums are below `2^44`, hence the second and third are statements about integers;
//! then `|top|, |bottom| < 2^31`, and `load` bounds the last two by `2^62`.

use super::recipe::{LimbRecipe, Recipe};
use super::tables::constant;
use super::types::{Copy, Home, Index, Order, Source, StorageId, TableKind, Term, View, ViewPiece};
use super::{Builder, Form, Layout, LayoutError};
use crate::eq::log2_ceil;
use crate::program::check::CheckedProgram;
use crate::program::quantize::Staircase;
use crate::program::{Contract, Formula, Op, Rescale, Rule, interval, limits, private};

const _: () = assert!(limits::PRIVATE_SPAN as usize <= 4 * LONG_RANGE_BITS);
/// Bits of the range table for values of up to 48 bits: three limbs.
const RANGE_BITS: usize = 16;
/// The same for values of up to 60 bits ([`limits::PRIVATE_SPAN`]): four limbs, which wider ones would let wrap.
const LONG_RANGE_BITS: usize = 15;

/// One channel's line; a channel with one output has none, which is `a = 0`.
#[derive(Clone, Copy)]
struct Slope {
    a: i64,
    d: i64,
    least: i64,
    most: i64,
}

/// A layer with weights, and its requantisation.
struct Layer<'a> {
    contract: &'a Contract,
    rescale: &'a Rescale,
    slopes: Vec<Slope>,
    /// `V`.
    bound: i64,
    /// Values before the clamp that are allowed.
    span: (i64, i64),
}

impl Layer<'_> {
    /// `log2` of `2 d V` of the widest channel: both last checks are below it.
    fn value_bits(&self) -> usize {
        let widest = self.slopes.iter().map(|s| s.d).max().unwrap_or(1);
        log2_ceil((2 * widest * self.bound) as usize)
    }

    /// `D - 1` of each channel.
    fn limits(&self) -> Vec<i64> {
        let of = |staircase: Staircase| staircase.whole_domain().1;
        match &self.rescale.formula {
            Formula::DoubleRounding(all) => all.iter().map(|&m| of(Staircase::Double(m))).collect(),
            Formula::SingleRounding(all) => all.iter().map(|&m| of(Staircase::Single(m))).collect(),
            Formula::AveragePool | Formula::Add { .. } => unreachable!("no checked program rescales a convolution so"),
        }
    }
}

fn layers(program: &CheckedProgram) -> Vec<Layer<'_>> {
    program.ops.iter().filter_map(|op| layer(program, op)).collect()
}

fn layer<'a>(program: &'a CheckedProgram, op: &'a Op) -> Option<Layer<'a>> {
    let Op::Contract { acc, contract } = op else { return None };
    let Op::Rescale(rescale) = &program.ops[program.rescale_of(*acc)] else { return None };
    let log_bound = program.log_bound(*acc)?;
    let slope = |rule: &Rule| match *rule {
        Rule::Constant(_) => Slope { a: 0, d: 1, least: 0, most: 0 },
        Rule::Line { line, .. } => Slope { a: line.a, d: line.d, least: line.b_pos.min(line.b_neg), most: line.b_pos.max(line.b_neg) },
    };
    let slopes = rescale.rules.iter().map(slope).collect();
    Some(Layer { contract, rescale, slopes, bound: 1 << log_bound, span: private::span(log_bound, rescale.zero.into()) })
}

impl Layout {
    /// The public structure of a private program's registration: no ports, the model oracle and a witness.
    pub fn registration(program: &CheckedProgram) -> Result<Layout, LayoutError> {
        if program.private.is_none() {
            return Err(LayoutError { operator: "the program".into(), why: "only private models are registered".into() });
        }
        let layers = layers(program);
        let widest = layers.iter().map(Layer::value_bits).max().unwrap_or(0);
        let range_bits = if widest <= 3 * RANGE_BITS { RANGE_BITS } else { LONG_RANGE_BITS };
        let mut b = Builder::cells_only(program, range_bits);
        for layer in &layers {
            b.register(layer)?;
        }
        Ok(b.out)
    }

    /// The public structure of a link: `fresh` more commitments hold the weights and biases of the model oracle.
    pub fn link(program: &CheckedProgram, fresh: usize) -> Layout {
        let mut b = Builder::cells_only(program, RANGE_BITS);
        let models: Vec<StorageId> = b.constants();
        for i in 1..=fresh {
            for &model in &models {
                let shape = b.out.storages[model];
                let again = b.storage(shape.positions, shape.channels, Home::Fresh(i as u32));
                let (source, copy) = (b.view_of(model), b.view_of(again));
                let dims: Vec<usize> = [shape.positions, shape.channels].into_iter().filter(|&d| d != 1).collect();
                let perm = (0..dims.len()).collect();
                b.out.copies.push(Copy { source, copy, order: Order::Refined { dims, perm } });
            }
        }
        b.out
    }
}

impl<'a> Builder<'a> {
    /// A statement about committed weights alone: no ports, and no tensors of the program.
    fn cells_only(program: &'a CheckedProgram, range_bits: usize) -> Self {
        let mut b = Builder::new(program, Form { committed: Vec::new(), committed_weights: true }, Vec::new(), range_bits);
        b.out.views.clear();
        b
    }

    /// Storages of all constants, in the order of the model oracle of every other proof.
    fn constants(&mut self) -> Vec<StorageId> {
        let mut out = Vec::new();
        for op in &self.program.ops {
            if let Op::Contract { contract: Contract::Conv { weights, bias, .. } | Contract::Depthwise { weights, bias, .. }, .. } = op {
                out.extend(self.constant(*weights));
                out.extend(bias.and_then(|b| self.constant(b)));
            }
        }
        out
    }

    /// A view of a whole storage.
    fn view_of(&mut self, storage: StorageId) -> u32 {
        let (positions, channels) = (self.out.storages[storage].positions, self.out.storages[storage].channels);
        let piece = ViewPiece {
            storage,
            tensor_positions: Index::all(positions),
            storage_positions: Index::all(positions),
            tensor_channels: Index::all(channels),
            storage_channels: Index::all(channels),
        };
        self.out.views.push(View { positions, channels, pieces: vec![piece], constants: Vec::new() });
        self.out.views.len() as u32 - 1
    }

    fn register(&mut self, layer: &Layer<'_>) -> Result<(), LayoutError> {
        let (x, weights, bias, x_zero, depthwise) = match *layer.contract {
            Contract::Conv { x, weights, bias, x_zero, .. } => (x, weights, bias, x_zero, false),
            Contract::Depthwise { x, weights, bias, x_zero, .. } => (x, weights, bias, x_zero, true),
            Contract::Sum { .. } | Contract::Mix { .. } => return Ok(()),
        };
        let (Some(w), bias) = (self.constant(weights), bias.and_then(|b| self.constant(b))) else { return Ok(()) };
        let shape = self.out.storages[w];
        let positive = self.witness(shape.positions, shape.channels);
        self.out.recipes.push(Recipe::Relu { storage: positive, of: w });
        let (relu, group) = (self.table(TableKind::Relu)?, self.group());
        let local = |s| vec![Term::new(1, Source::Local(s))];
        self.lookup(relu, shape.positions, &Index::all(shape.channels), group, vec![local(w), local(positive)]);

        let (low, high) = interval::centred(self.dtype_of(x), x_zero);
        let sum = |s, factor: i64| Term::new(factor, if depthwise { Source::ColumnSums(s) } else { Source::RowSums(s) });
        let offset: Vec<Term> = bias.iter().map(|&s| Term::new(1, Source::Local(s))).collect();
        let top = [offset.clone(), vec![sum(positive, high - low), sum(w, low)]].concat();
        let bottom = [offset.clone(), vec![sum(w, high), sum(positive, low - high)]].concat();

        let group = self.group();
        let limits = self.vector(layer.limits());
        let a = self.vector(layer.slopes.iter().map(|s| s.a).collect());
        let above = self.vector(layer.slopes.iter().map(|s| s.d * (layer.span.1 + 1) - 1 - s.most).collect());
        let below = self.vector(layer.slopes.iter().map(|s| s.least - s.d * layer.span.0).collect());
        let times = |terms: &[Term], factor: i64| terms.iter().map(|t| t.times(factor)).collect::<Vec<_>>();
        let sloped = |terms: &[Term], factor| times(terms, factor).into_iter().map(|t| t.weighted(&a, false)).collect::<Vec<_>>();
        let plus = |mut terms: Vec<Term>, vector| {
            terms.push(constant(1).weighted(vector, false));
            terms
        };
        let channels = layer.slopes.len();
        if bias.is_some() {
            let mut terms = offset;
            terms.push(constant(1 << 31));
            self.not_negative(terms, channels, group, 32)?;
        }
        self.not_negative(plus(times(&top, -1), &limits), channels, group, 32)?;
        self.not_negative(plus(bottom.clone(), &limits), channels, group, 32)?;
        self.not_negative(plus(sloped(&top, -1), &above), channels, group, layer.value_bits())?;
        self.not_negative(plus(sloped(&bottom, 1), &below), channels, group, layer.value_bits())
    }

    /// `0 <= terms`, for values below `2^bits`: limbs of `w` bits, the lowest virtual.
    fn not_negative(&mut self, terms: Vec<Term>, channels: usize, group: usize, bits: usize) -> Result<(), LayoutError> {
        let (range, w) = (self.range()?, self.out.range_bits);
        let limbs: Vec<StorageId> = (1..bits.div_ceil(w)).map(|_| self.witness(1, channels)).collect();
        let mut lowest = terms.clone();
        for (k, &s) in limbs.iter().enumerate() {
            lowest.push(Term::new(-(1 << (w * (k + 1))), Source::Local(s)));
            self.lookup(range, 1, &Index::all(channels), group, vec![vec![Term::new(1, Source::Local(s))]]);
        }
        self.lookup(range, 1, &Index::all(channels), group, vec![lowest]);
        self.out.recipes.push(Recipe::Limbs(LimbRecipe { terms, positions: 1, channels, limbs }));
        Ok(())
    }
}
