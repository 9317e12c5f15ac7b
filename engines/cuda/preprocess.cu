// A picture in device memory -> the detector's input: shrunk by area, turned upright, in RGB, normalised, in half
// precision, with grey to the right and below. One pass: every value of the source is read where it is needed.
//
// A source is NV12, I420 or interleaved 8-bit RGB or BGR with any pitch. Chroma counts as if each of its pixels were
// repeated over the luma pixels that it belongs to, and colour is computed from the means, as the weighted mean of
// the RGB pixels would be before clipping. Sums are in one fixed order, so that numpy can repeat them to the bit.
//
// No includes; compiles like nms.cu.

#ifdef __CUDACC__
static __device__ unsigned short float_to_half(float x) {
    unsigned short h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}
#endif

// The mean of an interval of one row or column pair: pixels first..last count 1, the two at the ends by their share.
struct Span {
    int first, last;
    float head, tail;
};

// Output pixel `at` of `out` pixels over `in` source pixels: [at * in / out, (at + 1) * in / out).
static __device__ Span span(int at, int in, int out) {
    long long from = (long long)at * in, to = from + in;
    Span s;
    s.first = (int)(from / out), s.last = (int)((to - 1) / out);
    s.head = (float)(out - (from - (long long)s.first * out)) / (float)out;
    s.tail = (float)(to - (long long)s.last * out) / (float)out;
    if (s.first == s.last) s.head = s.tail = (float)in / (float)out;
    return s;
}

static __device__ float weight(Span s, int i) { return i == s.first ? s.head : i == s.last ? s.tail : 1.0f; }

// The weighted sum over luma pixels of a plane whose pixels are `step` bytes apart and cover 1 << shift luma pixels.
static __device__ float area_sum(const unsigned char* plane, int pitch, int step, int shift, Span x, Span y) {
    float sum = 0.0f;
    for (int row = y.first; row <= y.last; row++) {
        const unsigned char* line = plane + (long long)(row >> shift) * pitch;
        float part = 0.0f;
        for (int column = x.first; column <= x.last; column++)
            part += __fmul_rn(weight(x, column), (float)line[(column >> shift) * step]);
        sum += __fmul_rn(weight(y, row), part);
    }
    return sum;
}

static __device__ float clip(float x) { return x < 0.0f ? 0.0f : x > 255.0f ? 255.0f : x; }

// One frame of a batch; rows of this are what engines/cuda/frame.py:SOURCE describes.
// plane: addresses of Y, U, V (NV12: V = U + 1) or of R, G, B of the first pixel (BGR likewise). first_pitch,
// other_pitch: bytes from a row to the next, of the first plane and of the others; first_step, other_step: from a pixel
// to the next. shift: 1 where the others are halved. width, height: of the stored frame; fitted_*: of the shrunk,
// turned one in the output. turn: quarters counter-clockwise by which the stored frame is turned for display.
// colour: row of the colour table, -1 where the planes are R, G, B. A frame that is 0 wide is all grey.
struct Source {
    const unsigned char* plane[3];
    int first_pitch, other_pitch, first_step, other_step, shift;
    int width, height, fitted_width, fitted_height, turn, colour, unused;
};

// colours: float [2, 6] = luma's zero and gain, then R from V, G from U, G from V, B from U.
// norm: float [7] = R, G, B's zero, their gains, and grey; (value - zero) * gain is stored, also for grey.
// output: half bits [images, 3, out_height, out_width], sides multiples of 32.
// Grid (ceil(out_width / 32), ceil(out_height / 8), images) of 32 x 8 threads. Four blocks on each multiprocessor: with
// 64 registers a thread nothing spills to memory.
extern "C" __global__ void __launch_bounds__(256, 4)
preprocess(const Source* sources, const float* colours, const float* norm, unsigned short* output, int out_width,
           int out_height) {
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= out_width || y >= out_height) return;
    const Source* frame = sources + blockIdx.z;
    float rgb[3] = {norm[6], norm[6], norm[6]};
    if (x < frame->fitted_width && y < frame->fitted_height) {
        int turn = frame->turn;
        bool lying = turn & 1;
        int width = lying ? frame->fitted_height : frame->fitted_width;
        int height = lying ? frame->fitted_width : frame->fitted_height;
        int sx = turn == 0 ? x : turn == 1 ? width - 1 - y : turn == 2 ? width - 1 - x : y;
        int sy = turn == 0 ? y : turn == 1 ? x : turn == 2 ? height - 1 - y : height - 1 - x;
        Span across = span(sx, frame->width, width), down = span(sy, frame->height, height);
        float pixels = __fmul_rn((float)frame->width / (float)width, (float)frame->height / (float)height);
        int step = frame->other_step, shift = frame->shift;
        float a = area_sum(frame->plane[0], frame->first_pitch, frame->first_step, 0, across, down) / pixels;
        float b = area_sum(frame->plane[1], frame->other_pitch, step, shift, across, down) / pixels;
        float c = area_sum(frame->plane[2], frame->other_pitch, step, shift, across, down) / pixels;
        if (frame->colour >= 0) {
            const float* colour = colours + 6 * frame->colour;
            float light = __fmul_rn(a - colour[0], colour[1]), u = b - 128.0f, v = c - 128.0f;
            a = clip(light + __fmul_rn(colour[2], v));
            b = clip(light + __fmul_rn(colour[3], u) + __fmul_rn(colour[4], v));
            c = clip(light + __fmul_rn(colour[5], u));
        }
        rgb[0] = a, rgb[1] = b, rgb[2] = c;
    }
    long long plane = (long long)out_width * out_height, at = (long long)y * out_width + x;
    output += 3 * plane * blockIdx.z;
    for (int k = 0; k < 3; k++) output[k * plane + at] = float_to_half(__fmul_rn(rgb[k] - norm[k], norm[3 + k]));
}
