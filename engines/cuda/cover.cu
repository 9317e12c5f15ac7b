// Faces covered on the planes of an NV12 picture in device memory, as pipeline/stages/anonymise.py covers
// them, to the last bit.
//
// A patch is one launch, and patches of a picture are launched one after the other, since they may overlap and what a
// square shows is the mean of what lies there by then. A block is one square of the picture-wide grid.
//
// No includes; compiles like nms.cu.

#define THREADS 128

// Whether pixel (x, y) of the picture lies in the patch's shape; middle and half of its sides in doubles, since the
// CPU's are.
__device__ bool inside(int x, int y, int box, double cx, double cy, double hx, double hy) {
    double u = (x + 0.5 - cx) / hx, v = (y + 0.5 - cy) / hy;
    return box || __dmul_rn(u, u) + __dmul_rn(v, v) <= 1.0;
}

// left, top, right, bottom: the patch, cut to the picture; left and top are even. cell: side of a square, even.
// solid: mid grey instead of the square's mean. luma, chroma: the two planes with their pitches in bytes.
// Grid (squares across, squares down) of THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
cover(unsigned char* luma, int luma_pitch, unsigned char* chroma, int chroma_pitch, int left, int top, int right,
      int bottom, int cell, int solid, int box, double cx, double cy, double hx, double hy) {
    __shared__ unsigned sums[3];
    int thread = threadIdx.x;
    int x0 = (left / cell + (int)blockIdx.x) * cell, y0 = (top / cell + (int)blockIdx.y) * cell;
    int x1 = x0 + cell < right ? x0 + cell : right, y1 = y0 + cell < bottom ? y0 + cell : bottom;
    x0 = x0 > left ? x0 : left, y0 = y0 > top ? y0 : top;
    int wide = x1 - x0, high = y1 - y0;
    int chroma_x = x0 / 2, chroma_y = y0 / 2, chroma_wide = (x1 + 1) / 2 - chroma_x, chroma_high = (y1 + 1) / 2 - chroma_y;
    if (thread < 3) sums[thread] = 0;
    __syncthreads();
    unsigned y_sum = 0, u_sum = 0, v_sum = 0;
    for (int i = thread; i < wide * high; i += THREADS)
        y_sum += luma[(long long)(y0 + i / wide) * luma_pitch + x0 + i % wide];
    for (int i = thread; i < chroma_wide * chroma_high; i += THREADS) {
        const unsigned char* uv = chroma + (long long)(chroma_y + i / chroma_wide) * chroma_pitch;
        u_sum += uv[2 * (chroma_x + i % chroma_wide)];
        v_sum += uv[2 * (chroma_x + i % chroma_wide) + 1];
    }
    atomicAdd(&sums[0], y_sum);
    atomicAdd(&sums[1], u_sum);
    atomicAdd(&sums[2], v_sum);
    __syncthreads();
    unsigned char y_new = solid ? 128 : sums[0] / (wide * high);
    unsigned char u_new = solid ? 128 : sums[1] / (chroma_wide * chroma_high);
    unsigned char v_new = solid ? 128 : sums[2] / (chroma_wide * chroma_high);
    for (int i = thread; i < wide * high; i += THREADS) {
        int x = x0 + i % wide, y = y0 + i / wide;
        if (inside(x, y, box, cx, cy, hx, hy)) luma[(long long)y * luma_pitch + x] = y_new;
    }
    for (int i = thread; i < chroma_wide * chroma_high; i += THREADS) {
        int x = chroma_x + i % chroma_wide, y = chroma_y + i / chroma_wide;
        bool any = false;  // a chroma pixel is covered when any of its pixels in the patch is
        for (int k = 0; k < 4; k++) {
            int px = 2 * x + (k & 1), py = 2 * y + (k >> 1);
            any = any || (px < right && py < bottom && inside(px, py, box, cx, cy, hx, hy));
        }
        if (!any) continue;
        unsigned char* uv = chroma + (long long)y * chroma_pitch + 2 * x;
        uv[0] = u_new;
        uv[1] = v_new;
    }
}
