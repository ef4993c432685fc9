mkdir /layers/mine /layers/base
echo mine >/layers/mine/colours
echo base | tee /layers/base/colours >/layers/base/shapes
